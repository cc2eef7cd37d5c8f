"""Serving products: one thread and one failure domain each, so that one product's fault stops no other."""

from __future__ import annotations

import time
import traceback
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, TypeAlias

import structlog

from headrace.schemas.catalog import open_catalog
from headrace.schemas.errors import HeadraceError, Stale, Unavailable
from headrace.schemas.registry import Registry
from headrace.sinks.batch import Limits
from headrace.sinks.catchup import Targets
from headrace.sinks.deadletters import DeadLetters
from headrace.sinks.decoding import Decoding
from headrace.sinks.landing import Desk
from headrace.sinks.patience import Patience
from headrace.sinks.pipeline import Pipeline
from headrace.sinks.session import STOP_S, Session, Works
from headrace.streams.admin import Admin
from headrace.streams.reader import KafkaReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyiceberg.catalog import Catalog

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.sinks.landing import Landed, Step
    from headrace.streams.reader import Rebalance

OnLanded: TypeAlias = "Callable[[Product, Landed], None]"

# A sink asks again, so it may give up sooner than people: a stop waits for the request that is under way.
ADMIN_TIMEOUT_S = 5.0

_LOG = structlog.get_logger("headrace.sink")


def serve(
    mesh: Mesh, products: Sequence[str], *, until_caught_up: bool, stop: Event, on_landed: OnLanded | None = None
) -> bool:
    """Run the sinks of some products (none named: of all) until ``stop`` is set, or until caught up.

    Args:
        mesh: the mesh.
        products: names, ``domain.product``.
        until_caught_up: end when all that was in the topics at the start is in the tables.
        stop: set it to end: each sink lands once more within 10 s.
        on_landed: is told each commit, from the product's thread.

    Returns:
        False if any product stopped on a fault; each has been logged with its next step.

    Raises:
        UserError: a product that the mesh does not have, a missing secret; nothing was started.
    """
    chosen = [mesh.product(name) for name in products] or list(mesh.all_products)
    hmac_key = mesh.environment.hmac_key()
    with Registry(mesh.environment.registry_config()) as registry:
        settings = [Setting(mesh, product, registry, hmac_key, on_landed=on_landed or _ignore) for product in chosen]
        sinks = [
            Pipeline(f"sink-{setting.product.name}").submit(
                partial(ProductSink(setting).run, stop, until_caught_up=until_caught_up)
            )
            for setting in settings
        ]
        try:
            # Each is waited for, also behind one that failed.
            outcomes = [sink.result() for sink in sinks]
            return all(outcomes)
        except BaseException:
            # Ctrl-C here, or a fault that is no product's own: the others land once more, within the time of a stop.
            stop.set()
            wait(sinks, STOP_S)
            raise


def _ignore(product: Product, landed: Landed) -> None:
    """Nobody watches the commits."""


def unobserved(step: Step) -> None:
    """Nobody watches the steps."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a product's sink is made from.

    Attributes:
        mesh: the mesh.
        product: the product.
        registry: the schema registry, shared between products.
        hmac_key: the mesh's secret.
        on_landed: is told each commit.
        catalog: the catalog of the product's domain; None: the environment's.
        observe: is told each step of a landing before it is done, from the landing's thread.
    """

    mesh: Mesh
    product: Product
    registry: Registry
    hmac_key: bytes
    on_landed: OnLanded = _ignore
    catalog: Catalog | None = None
    observe: Callable[[Step], None] = unobserved

    @property
    def limits(self) -> Limits:
        """When a batch is due: the environment's interval, else the contract's latency."""
        interval_s = self.mesh.environment.commit_interval_s
        return Limits(age_s=self.product.contract.freshness_s if interval_s is None else interval_s)


class ProductSink:
    """A product's sink: sessions, one after the other, until it is told to stop or only an operator can decide."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._log = _LOG.bind(product=str(setting.product.name))
        self._patience = Patience(self._waiting)
        self._between = Patience(self._waiting, repeated=(Unavailable, Stale))
        self._targets: Targets | None = None
        self._progress = False

    def run(self, stop: Event, *, until_caught_up: bool = False) -> bool:
        """Run sessions until ``stop`` is set or all is caught up; False if the product stopped on a fault."""
        try:
            while not self._between.with_(lambda: self._one_session(stop, until_caught_up=until_caught_up), stop):
                pass
        except (Unavailable, Stale) as error:
            # Only a stop ends the waiting: what was not landed is read again next time.
            self._log.warning("stopped while waiting", what=str(error))
        except HeadraceError as error:
            self._log.error("stopped", what=error.what, where=error.where, next=error.hint)
            return False
        except Exception as error:  # noqa: BLE001 - one product's fault stops no other
            # A message may hold a value: only the kind of the error and the code's places are logged.
            self._log.error("stopped by a bug of headrace", kind=type(error).__name__, places=_places(error))
            return False
        return True

    def _one_session(self, stop: Event, *, until_caught_up: bool) -> bool:
        """Run a session. False: it broke off after it had landed something, so what went wrong before is forgotten.

        Raises:
            Unavailable: it broke off before it had landed anything.
            Stale: likewise, because another worker has moved the table.
        """
        self._progress = False
        try:
            self._session(stop, until_caught_up=until_caught_up)
        except (Unavailable, Stale) as error:
            if stop.is_set() or not self._progress:
                raise
            self._waiting(error)
            return False
        return True

    def _session(self, stop: Event, *, until_caught_up: bool) -> None:
        setting, mesh = self._setting, self._setting.mesh
        product, kafka = setting.product, mesh.environment.kafka_config()
        catalog = setting.catalog or open_catalog(mesh.environment, mesh.domain_of(product))
        admin = Admin(kafka, request_timeout_s=ADMIN_TIMEOUT_S)
        if until_caught_up and self._targets is None:
            self._targets = Targets(admin.watermarks(admin.topic(product.topic)))
        decoding = Decoding(product, mesh.policy, catalog, setting.registry, setting.hmac_key)
        abandon = Event()
        post = DeadLetters(kafka, product, abandon)
        desk = Desk(product, catalog, post, decoding.shape, lambda: admin.topic(product.topic).id)
        works = Works(
            product, admin, decoding, desk, setting.limits, self._patience, setting.observe, self._landed, abandon
        )

        def open_reader(rebalance: Rebalance) -> KafkaReader:
            return KafkaReader(kafka, product.topic, product.sink_group, rebalance)

        try:
            with Session(works, open_reader) as session:
                session.run(stop, self._targets)
        finally:
            post.close()

    def _landed(self, landed: Landed, seconds: float) -> None:
        self._progress = True
        self._log.info(
            "committed",
            rows=landed.rows,
            dead_letters=landed.letters,
            seconds=round(seconds, 3),
            lag_s=None if landed.newest_s is None else round(max(time.time() - landed.newest_s, 0.0), 3),
            snapshot=landed.snapshot_id,
        )
        self._setting.on_landed(self._setting.product, landed)

    def _waiting(self, error: HeadraceError) -> None:
        if isinstance(error, Stale):
            self._log.warning("another worker has moved the table: starting from its ledger", what=error.what)
            return
        self._log.warning("waiting", what=error.what, where=error.where, next=error.hint)


def _places(error: BaseException) -> list[str]:
    return [f"{frame.name} {frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
