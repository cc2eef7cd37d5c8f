"""``headrace audit``: the scanner, and the Faust application that judges what it observes, in one process.

The scanner runs in a thread of its own, the application's loop in another, what it judges in a third: Kafka's clients,
the registry and the catalogs block. Each process of several has both halves; of each half one works, and another takes
over when it dies.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from headrace.governance.judge import Judge
from headrace.governance.mesh_watch import MeshWatch
from headrace.governance.scanner import ADMIN_TIMEOUT_S, OBSERVATIONS, Scanner
from headrace.governance.unjudged import Unjudged
from headrace.schemas.errors import Bug, HeadraceError, Unavailable
from headrace.sinks.pipeline import Pipeline
from headrace.streams.admin import Admin
from headrace.streams.faust_codec import LOGGER, faust_app, faust_topic

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    import faust

    from headrace.governance.judge import JudgeWatcher
    from headrace.governance.scanner import ScannerWatcher
    from headrace.schemas.mesh import Mesh

__all__ = ["AuditWatcher", "audit"]

APPLICATION = "auditor"
# What was judged is committed each second: `--until-caught-up` waits for it.
COMMIT_INTERVAL_S = 1.0
# A stop waits so long for what is under way; what is cut off is what the protocol is made for.
STOP_S = 8.0
_LOOK_S = 0.1
_RESTART_S = 2.0

_LOG = structlog.get_logger("headrace.auditor")


class _Lines(logging.Handler):
    """Lets the lines of headrace's Faust codec be lines like the others."""

    def emit(self, record: logging.LogRecord) -> None:
        _LOG.warning(record.getMessage())


# Faust and its client tell of everything they do; without a handler Python would show their warnings.
for _name in ("faust", "mode", "aiokafka"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class AuditWatcher(Protocol):
    """Is told how an audit gets on, from several threads."""

    @property
    def scanner(self) -> ScannerWatcher:
        """Is told of the scanner."""
        ...

    @property
    def judge(self) -> JudgeWatcher:
        """Is told of the application."""
        ...


def audit(mesh: Mesh, *, until_caught_up: bool, stop: Event, watcher: AuditWatcher) -> bool:
    """Scan and judge until ``stop`` is set; or until what there is now has been seen once, judged and published.

    Args:
        mesh: the mesh; its files are watched.
        until_caught_up: end after one complete look.
        stop: set it to end: what is under way is given 8 s.
        watcher: is told how it gets on.

    Returns:
        False if something could not be looked at, because only an operator can mend it; it has been logged.

    Raises:
        NotApplied: if governance's own topics do not exist yet; nothing was started.
        SettingsError: if a secret or a setting of the environment is missing; nothing was started.
        UserError: if the environment's Kafka properties have no equal in Faust's client; nothing was started.
        Unavailable: if the environment's own stack is not up; nothing was started.
    """
    if not LOGGER.handlers:
        LOGGER.addHandler(_Lines(logging.WARNING))
        LOGGER.propagate = False
    config = mesh.environment.kafka_config()
    mesh.environment.registry_config()
    topic = mesh.product(OBSERVATIONS).topic
    # A broker that is away is waited for, as it will be later on.
    with suppress(Unavailable):
        Admin(config, request_timeout_s=ADMIN_TIMEOUT_S).topic(topic)
    application = _Application(mesh, Judge(mesh, watcher.judge), stop)
    group = str(_faust(mesh).conf.id)
    scanner = Scanner(MeshWatch(mesh), stop, watcher.scanner)

    def scan() -> bool:
        try:
            if until_caught_up:
                return not scanner.once() and _judged(Unjudged(config, topic, group), stop)
            scanner.run()
            return True
        finally:
            stop.set()

    scanning: Future[Any] = Pipeline("scanner").submit(scan)
    running: Future[Any] = Pipeline("application").submit(lambda: asyncio.run(application.run()))
    try:
        stop.wait()
    finally:
        stop.set()
        # What has not ended by then ends with the process: Kafka's clients wait for a broker that is away.
        wait((scanning, running), STOP_S)
    if application.failure is not None:
        raise application.failure
    if running.done():
        running.result()
    return bool(scanning.result()) if scanning.done() else not until_caught_up


def _judged(unjudged: Unjudged, stop: Event) -> bool:
    """Wait until all that was observed has been judged, here or in another process; False if stopped before."""
    with unjudged:
        while not stop.is_set():
            try:
                if not unjudged.any():
                    return True
            except Unavailable as error:
                _LOG.warning("waiting", what=error.what, where=error.where, next=error.hint)
            stop.wait(_LOOK_S)
    return False


def _faust(mesh: Mesh) -> faust.App:
    return faust_app(mesh, APPLICATION, standby=True, broker_commit_interval=COMMIT_INTERVAL_S)


class _Application:
    """The Faust application, made anew whenever it has ended, until ``stop`` is set.

    Attributes:
        failure: a bug in judging, which ends everything.
    """

    def __init__(self, mesh: Mesh, judge: Judge, stop: Event) -> None:
        self.failure: BaseException | None = None
        self._mesh = mesh
        self._judge = judge
        self._stop = stop
        self._thread = Pipeline("judge")
        # Set while this process has no observations to judge.
        self._over = Event()
        self._over.set()

    def make(self) -> faust.App:
        """Return the application.

        Raises:
            HeadraceError: if the broker does not answer, or refuses.
        """
        app = _faust(self._mesh)
        observations = faust_topic(app, self._mesh, OBSERVATIONS)

        @app.agent(observations)
        async def judge(stream: Any) -> None:
            async for event in stream.noack().events():
                if await self._do(partial(self._judge.judge, event.value, self._over)):
                    # What was broken off is not acknowledged: whoever is given the partition next judges it.
                    await stream.ack(event)

        # mode's signals give the sender by place, the partitions too, and more by name.
        @app.on_partitions_assigned.connect
        async def assigned(*given: Any, **_: Any) -> None:
            if given[-1]:
                self._over = Event()
                self._thread.submit(partial(self._begin, self._over))
            else:
                self._thread.submit(self._judge.stand_by)

        @app.on_partitions_revoked.connect
        async def revoked(*_given: Any, **_: Any) -> None:
            self._over.set()

        return app

    async def run(self) -> None:
        """Run the application."""
        try:
            while not self._stop.is_set():
                try:
                    await self._serve(self.make())
                except Bug:
                    raise
                except HeadraceError as error:
                    self._judge.waiting(error)
                await self._rest(_RESTART_S)
        finally:
            self._over.set()
            self._stop.set()

    async def _serve(self, app: faust.App) -> None:
        try:
            await app.start()
            # The stop is a thread's event: the scanner and signal handlers set it.
            while not (self._stop.is_set() or app.should_stop or app.crashed):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
            if app.crashed:
                _LOG.warning("the application broke off: it is started again", kind=_kind(app.crash_reason))
        except Exception as error:  # noqa: BLE001 - Faust's client raises all kinds of errors while the broker is away
            _LOG.warning("the application does not start: it is tried again", kind=_kind(error))
        finally:
            self._over.set()
            # It leaves the group, for which it may wait as long as the broker is away.
            await asyncio.wait([asyncio.ensure_future(app.stop())], timeout=STOP_S)

    async def _rest(self, seconds: float) -> None:
        for _ in range(round(seconds / _LOOK_S)):
            if not self._stop.is_set():
                await asyncio.sleep(_LOOK_S)

    async def _do(self, job: Callable[[], bool]) -> bool:
        return await asyncio.wrap_future(self._thread.submit(partial(self._guarded, job)))

    def _begin(self, over: Event) -> bool:
        # Another process may have judged since.
        self._judge.end()
        return self._guarded(partial(self._judge.begin, over))

    def _guarded(self, job: Callable[[], bool]) -> bool:
        try:
            return job()
        except Exception as error:  # noqa: BLE001 - only a bug comes here: it is raised in `audit`, Faust would log it
            self.failure = error
            self._stop.set()
            return False


def _kind(error: BaseException | None) -> str:
    return type(error).__name__
