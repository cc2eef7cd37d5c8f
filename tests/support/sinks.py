"""Running sinks for tests: in threads, with what they log. For processes of their own see ``forked.py``."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, TopicPartition
from structlog.testing import capture_logs

from headrace.governance.verify import verify
from headrace.schemas.registry import Registry
from headrace.sinks.serve import ProductSink, Setting
from headrace.sinks.watch import Unwatched
from headrace.streams.admin import Admin
from tests.support.forked import Process, process
from tests.support.meshes import encoded
from tests.support.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence

    from pyiceberg.catalog import Catalog

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.sinks.landing import Landed, Step

__all__ = [
    "Process",
    "Sink",
    "assert_exactly_once",
    "caught_up",
    "dead_letters",
    "events",
    "eventually",
    "process",
    "registered_id",
    "running",
]

ROOT = Path(__file__).parents[2]
_NEVER_S = 3600.0


def assert_exactly_once(mesh: Mesh, *names: str) -> None:
    """Check with headrace's own proof that topics and tables agree."""
    products = [mesh.product(name) for name in names] or list(mesh.products)
    audit = verify(mesh, products, lambda _: None)
    assert audit.holds, [(str(product.fault), product.verdicts) for product in audit.products if not product.holds]


def registered_id(mesh: Mesh, product: Product) -> int:
    """Return the id under which the product's schema is registered."""
    with Registry(mesh.environment.registry_config()) as registry:
        found = registry.lookup(product.subject, product.schema)
    assert found is not None
    return found.id


def events(mesh: Mesh, product: Product, bodies: Iterable[Mapping[str, Any]]) -> list[tuple[str | None, bytes | None]]:
    """Return events of a product as messages, keyed by their first field."""
    schema_id = registered_id(mesh, product)
    key = product.contract.key[0]
    return [(str(body[key]), encoded(product.schema, schema_id, body)) for body in bodies]


@dataclass
class Sink:
    """Products' sinks in threads of this process."""

    mesh: Mesh
    names: Sequence[str]
    logs: list[MutableMapping[str, Any]]
    catalogs: Mapping[str, Catalog] = field(default_factory=dict)
    observe: Callable[[Step], None] = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)
    landed: list[tuple[str, Landed]] = field(default_factory=list)
    outcomes: dict[str, bool] = field(default_factory=dict)

    def logged(self, event: str, product: str | None = None) -> list[MutableMapping[str, Any]]:
        """Return the log lines of an event, of one product or of all."""
        return [line for line in list(self.logs) if line["event"] == event and product in (None, line.get("product"))]

    def rows(self, product: str) -> int:
        """Return how many rows have landed so far."""
        return sum(landed.rows for name, landed in list(self.landed) if name == product)

    def ended(self, product: str) -> bool:
        """Tell whether a product's sink has ended."""
        return product in self.outcomes


@dataclass(frozen=True)
class _Landings(Unwatched):
    """Keeps each commit."""

    kept: list[tuple[str, Landed]]

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:
        self.kept.append((str(product.name), landed))


@contextmanager
def running(
    mesh: Mesh,
    names: Sequence[str] = (),
    *,
    catalogs: Mapping[str, Catalog] | None = None,
    observe: Callable[[Step], None] | None = None,
    until_caught_up: bool = False,
) -> Iterator[Sink]:
    """Run products' sinks in threads while the block lasts; then stop them and wait.

    Those that run until they have caught up commit once, when they have read all, however slowly it comes.
    """
    mesh = _in_one_commit(mesh) if until_caught_up else mesh
    chosen = list(names) or [str(product.name) for product in mesh.products]
    with capture_logs() as logs, Registry(mesh.environment.registry_config()) as registry:
        sink = Sink(mesh, chosen, logs, catalogs or {})
        if observe is not None:
            sink.observe = observe

        def run(name: str) -> None:
            setting = Setting(
                mesh,
                mesh.product(name),
                registry,
                mesh.environment.hmac_key(),
                watcher=_Landings(sink.landed),
                catalog=sink.catalogs.get(name),
                observe=sink.observe,
            )
            sink.outcomes[name] = ProductSink(setting).run(sink.stop, until_caught_up=until_caught_up)

        threads = [threading.Thread(target=run, args=[name], name=f"sink-{name}", daemon=True) for name in chosen]
        for thread in threads:
            thread.start()
        try:
            yield sink
        finally:
            if not until_caught_up:
                sink.stop.set()
            over = _ended(threads, sink)
            sink.stop.set()
            assert over, f"a sink does not end: {logs}"


def _in_one_commit(mesh: Mesh) -> Mesh:
    environment = mesh.environment
    sink = environment.settings.sink.model_copy(update={"commit_interval_s": _NEVER_S})
    return replace(
        mesh, environment=replace(environment, settings=environment.settings.model_copy(update={"sink": sink}))
    )


def _ended(threads: Sequence[threading.Thread], sink: Sink) -> bool:
    """Wait for the threads' end, for as long as anything lands: how long millions of rows take nobody knows."""
    over, landed = False, -1
    while not over and len(sink.landed) > landed:
        landed = len(sink.landed)
        over = eventually(lambda: not any(thread.is_alive() for thread in threads))
    return over


def caught_up(mesh: Mesh, *names: str, catalogs: Mapping[str, Catalog] | None = None) -> Sink:
    """Run products' sinks until all that is in their topics now has landed."""
    with running(mesh, names, catalogs=catalogs, until_caught_up=True) as sink:
        pass
    return sink


def dead_letters(mesh: Mesh, product: Product) -> list[tuple[dict[str, str], bytes | None, bytes | None]]:
    """Return the headers, key and value of all of a product's dead letters."""
    admin = Admin(mesh.environment.kafka_config())
    marks = admin.watermarks(admin.topic(product.dead_letter_topic))
    consumer = Consumer({**mesh.environment.kafka_config(), "group.id": "unused", "enable.auto.commit": False})
    letters = []
    try:
        consumer.assign([TopicPartition(product.dead_letter_topic, p, bound.low) for p, bound in marks.items()])
        left = sum(bound.end - bound.low for bound in marks.values())
        deadline = time.monotonic() + PATIENCE_S
        while left and time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is None or message.error():
                continue
            left -= 1
            headers = dict(message.headers() or ())
            texts = {name: value.decode() for name, value in headers.items() if isinstance(value, bytes)}
            letters.append((texts, message.key(), message.value()))
        assert not left, "dead letters cannot be read"
    finally:
        consumer.close()
    return letters
