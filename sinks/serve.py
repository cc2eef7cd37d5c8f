"""Serving products: one thread and one failure domain each, so that one product's fault stops no other."""

from __future__ import annotations

from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

import structlog

from headrace.schemas.errors import Bug, HeadraceError, Stale, Unavailable
from headrace.schemas.registry import Registry
from headrace.sinks.catchup import Targets
from headrace.sinks.dead_letters.table import LetterTable
from headrace.sinks.dead_letters.topic import DeadLetters
from headrace.sinks.decoding import Decoding
from headrace.sinks.landing import Desk
from headrace.sinks.mending import LOOK_AGAIN_S, Mending, mendable, signs_of
from headrace.sinks.patience import Patience, Rest
from headrace.sinks.pipeline import Pipeline
from headrace.sinks.places import places_of
from headrace.sinks.session import STOP_S, Session
from headrace.sinks.setting import UNWATCHED, Admins, Setting, check_instance_id
from headrace.sinks.share import Share
from headrace.sinks.upkeep.expiry import Expiry
from headrace.sinks.upkeep.keeping import keeping
from headrace.sinks.watch import Standing, Wait, WatchedReader
from headrace.sinks.work import Works

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from headrace.schemas.mesh import Mesh
    from headrace.sinks.landing import Landed
    from headrace.sinks.mending import Signs
    from headrace.sinks.watch import Watcher
    from headrace.streams.reader import Rebalance

__all__ = ["ProductSink", "Setting", "serve"]

_LOG = structlog.get_logger("headrace.sink")


def serve(
    mesh: Mesh,
    products: Sequence[str],
    *,
    until_caught_up: bool,
    stop: Event,
    watcher: Watcher | None = None,
    instance_id: str | None = None,
) -> bool:
    """Run the sinks of some products (none named: of all) until ``stop`` is set, or until caught up.

    A product that stops on a fault is looked at every 30 s: it is tried once more, and then whenever topic, table or
    ledger have changed; not where it is to end when it has caught up.

    Args:
        mesh: the mesh.
        products: names, ``domain.product``; one that is named twice is served once.
        until_caught_up: end when all that was in the topics at the start is in the tables.
        stop: set it to end: each sink lands once more within 10 s.
        watcher: is told how the products' sinks get on, from their threads.
        instance_id: makes this process a static member of the products' groups: of each id there may be one.

    Returns:
        False if any product stopped on a fault; each has been logged with its next step.

    Raises:
        UserError: a product that the mesh does not have, a missing secret, a wrong instance id; nothing was started.
    """
    check_instance_id(instance_id)
    chosen = [mesh.product(name) for name in dict.fromkeys(products)] or list(mesh.all_products)
    hmac_key = mesh.environment.hmac_key()
    admins = Admins()
    with Registry(mesh.environment.registry_config()) as registry:
        settings = [
            Setting(
                mesh,
                product,
                registry,
                hmac_key,
                watcher=watcher or UNWATCHED,
                share=Share.of(len(chosen)),
                instance_id=instance_id,
                admins=admins,
                look_again_s=LOOK_AGAIN_S,
            )
            for product in chosen
        ]
        sinks = [_start(setting, stop, until_caught_up=until_caught_up) for setting in settings]
        try:
            # Each is waited for, also behind one that failed.
            outcomes = [sink.result() for sink in sinks]
            return all(outcomes)
        except BaseException:
            # Ctrl-C here, or a fault that is no product's own: the others land once more, within the time of a stop.
            stop.set()
            wait(sinks, STOP_S)
            raise


def _start(setting: Setting, stop: Event, *, until_caught_up: bool) -> Future[bool]:
    sink = Pipeline(f"sink-{setting.product.name}").submit(
        partial(ProductSink(setting).run, stop, until_caught_up=until_caught_up)
    )

    def tell(ended: Future[bool]) -> None:
        # Whoever waits for the outcomes may still be waiting for another product's.
        error = ended.exception()
        if error is not None:
            setting.watcher.ended(setting.product, Bug(f"its thread has died ({type(error).__name__})"))

    sink.add_done_callback(tell)
    return sink


class ProductSink:
    """A product's sink: sessions, one after the other, until it is told to stop or only an operator can decide."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._log = _LOG.bind(product=str(setting.product.name))
        self._standing = Standing(setting.product, setting.watcher)
        self._patience = Patience(
            partial(self._waiting, Wait.WORK), recovered=partial(self._standing.goes_on, Wait.WORK)
        )
        self._between = Patience(partial(self._waiting, Wait.SESSION), repeated=(Unavailable, Stale))
        self._targets: Targets | None = None
        self._expiry = Expiry(setting.product.contract.upkeep)
        self._mending = Mending(self._signs)
        self._progress = False

    def run(self, stop: Event, *, until_caught_up: bool = False) -> bool:
        """Run sessions until ``stop`` is set or all is caught up; False if the product stopped on a fault.

        A fault that somebody has mended is none, if the setting says that it is looked at again.
        """
        while (fault := self._sessions(stop, until_caught_up=until_caught_up)) is not None:
            self._standing.ended(fault)
            if until_caught_up or not self._mended(fault, stop):
                return False
        self._standing.ended(None)
        return True

    def _sessions(self, stop: Event, *, until_caught_up: bool) -> HeadraceError | None:
        """Run sessions; return the fault that ended them."""
        try:
            while not self._between.with_(lambda: self._one_session(stop, until_caught_up=until_caught_up), stop):
                pass
        except (Unavailable, Stale) as error:
            # Only a stop ends the waiting: what was not landed is read again next time.
            self._log.warning("stopped while waiting", what=str(error))
        except HeadraceError as error:
            self._log.error("stopped", what=error.what, where=error.where, next=error.hint)
            return error
        except Exception as error:  # noqa: BLE001 - one product's fault stops no other
            return self._bug(error)
        return None

    def _bug(self, error: Exception) -> Bug:
        # A message may hold a value: only the kind of the error and the code's places are logged.
        kind = type(error).__name__
        self._log.error("stopped by a bug of headrace", kind=kind, places=places_of(error))
        return Bug(f"stopped by a bug of headrace ({kind})")

    def _mended(self, fault: HeadraceError, stop: Event) -> bool:
        """Wait until it is worth while to try again; False: nobody looks any more."""
        look_again_s = self._setting.look_again_s
        if look_again_s is None or not mendable(fault):
            return False
        try:
            while not stop.wait(look_again_s):
                if self._mending.seen():
                    self._log.info("trying again: it may have been mended")
                    return True
        except Exception as error:  # noqa: BLE001 - as `_sessions`
            self._standing.ended(self._bug(error))
        return False

    def _signs(self) -> Signs:
        setting = self._setting
        return signs_of(setting.product, setting.open_catalog(), setting.open_admin())

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
            self._waiting(Wait.SESSION, error)
            return False
        return True

    def _session(self, stop: Event, *, until_caught_up: bool) -> None:
        self._standing.opening()
        setting, mesh = self._setting, self._setting.mesh
        product = setting.product
        catalog = setting.open_catalog()
        admin = setting.open_admin()
        if until_caught_up and self._targets is None:
            self._targets = Targets(admin.watermarks(admin.topic(product.topic)))
        decoding = Decoding(product, mesh.policy, catalog, setting.registry, setting.hmac_key)
        abandon = Event()
        post = DeadLetters(mesh.environment.kafka_config(), product, admin, abandon)
        desk = Desk(
            product,
            catalog,
            post,
            decoding.shape,
            lambda: admin.topic(product.topic).id,
            register=LetterTable(catalog, product),
            rest=Rest(abandon),
            expire=self._expiry,
        )
        works = Works(
            product,
            admin,
            decoding,
            desk,
            setting.limits,
            self._patience,
            setting.observe,
            self._landed,
            abandon,
            reached=partial(setting.watcher.reached, product),
            upkeep=keeping(product, catalog, self._expiry.seen),
        )

        def open_reader(rebalance: Rebalance) -> WatchedReader:
            joined = _Joined(rebalance, lambda: self._standing.goes_on(Wait.SESSION))
            return WatchedReader(
                setting.open_reader(joined), self._standing, lambda: admin.watermarks(admin.topic(product.topic))
            )

        try:
            with Session(works, open_reader) as session:
                session.run(stop, self._targets)
        finally:
            post.close()

    def _landed(self, landed: Landed, seconds: float) -> None:
        self._progress = True
        self._mending.forget()
        self._log.info(
            "committed",
            rows=landed.rows,
            dead_letters=landed.letters,
            seconds=round(seconds, 3),
            lag_s=None if landed.newest_s is None else round(max(landed.at_s - landed.newest_s, 0.0), 3),
            snapshot=landed.snapshot_id,
            **({"conflicts": landed.conflicts} if landed.conflicts else {}),
        )
        self._setting.watcher.landed(self._setting.product, landed, seconds)

    def _waiting(self, place: Wait, error: HeadraceError) -> None:
        self._standing.waits(place, error)
        if isinstance(error, Stale):
            self._log.warning("another worker has moved the table: starting from its ledger", what=error.what)
            return
        self._log.warning("waiting", what=error.what, where=error.where, next=error.hint)


@dataclass(frozen=True, slots=True)
class _Joined:
    """A session that tells when the group has given it its partitions."""

    session: Rebalance
    tell: Callable[[], None]

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        positions = self.session.assigned(partitions)
        self.tell()
        return positions

    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        self.session.revoked(partitions, lost=lost)
