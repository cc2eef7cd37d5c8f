"""A product that stopped on a fault goes on by itself once an operator has mended it; others never notice."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headrace.schemas.catalog import open_catalog
from headrace.schemas.registry import Registry
from headrace.sinks.acceptance import accept, find_gaps
from headrace.sinks.serve import ProductSink, Setting
from headrace.sinks.watch import Unwatched
from headrace.streams.admin import Admin
from tests.support.meshes import ORDERS, ids
from tests.support.sinks import assert_exactly_once, caught_up, eventually
from tests.support.topics import delete_records, publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.sinks.landing import Landed

LOOK_AGAIN_S = 0.2
WITHIN_S = 120.0


@dataclass
class Told(Unwatched):
    """What a sink tells of itself."""

    events: list[str] = field(default_factory=list)
    rows: int = 0

    def running(self, product: Product) -> None:
        self.events.append("running")

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:
        self.rows += landed.rows

    def ended(self, product: Product, fault: HeadraceError | None) -> None:
        self.events.append("ended" if fault is None else type(fault).__name__)


@contextmanager
def looked_at_again(mesh: Mesh) -> Iterator[tuple[Told, list[bool]]]:
    """Run the product's sink as a service does, but in more haste."""
    told, stop, fine = Told(), threading.Event(), list[bool]()
    with Registry(mesh.environment.registry_config()) as registry:
        key = mesh.environment.hmac_key()
        setting = Setting(mesh, mesh.product(ORDERS), registry, key, watcher=told, look_again_s=LOOK_AGAIN_S)
        thread = threading.Thread(target=lambda: fine.append(ProductSink(setting).run(stop)), daemon=True)
        thread.start()
        try:
            yield told, fine
        finally:
            stop.set()
            thread.join(WITHIN_S)
    assert not thread.is_alive()


def lose(mesh: Mesh) -> None:
    """Let Kafka delete five events that are not in the table yet."""
    publish(mesh, ORDERS, range(20), partition=0)
    assert all(caught_up(mesh).outcomes.values())
    publish(mesh, ORDERS, range(20, 40), partition=0)
    delete_records(mesh, mesh.product(ORDERS), {0: 25})


def test_a_sink_goes_on_by_itself_behind_a_gap_that_was_accepted(mesh: Mesh) -> None:
    lose(mesh)
    product, catalog = mesh.product(ORDERS), open_catalog(mesh.environment, mesh.domain_of(mesh.product(ORDERS)))
    admin = Admin(mesh.environment.kafka_config())
    with looked_at_again(mesh) as (told, fine):
        assert eventually(lambda: bool(told.events), within_s=WITHIN_S)
        accept(
            catalog,
            product,
            find_gaps(catalog, product, admin, mesh.environment.kafka_config()),
            admin,
            datetime.now(UTC),
        )
        assert eventually(lambda: told.rows == 15, within_s=WITHIN_S)
        # It may have been tried once before.
        assert {*told.events[:-1]} == {"ProductStopped"}
        assert told.events[-1] == "running"
    assert fine == [True]
    assert told.events[-1] == "ended"
    assert ids(mesh) == sorted(f"o{number}" for number in (*range(20), *range(25, 40)))
    assert_exactly_once(mesh)


def test_a_sink_that_nobody_mends_stays_where_it_is_and_ends_when_told_to(mesh: Mesh) -> None:
    lose(mesh)
    with looked_at_again(mesh) as (told, fine):
        # It is tried once more.
        assert eventually(lambda: told.events == ["ProductStopped"] * 2, within_s=WITHIN_S)
        # Further events are no reason to try again.
        publish(mesh, ORDERS, range(40, 50), partition=1)
        assert not eventually(lambda: len(told.events) > 2, within_s=10 * LOOK_AGAIN_S)
    assert fine == [False]
    assert told.events == ["ProductStopped"] * 2
    assert len(ids(mesh)) == 20
