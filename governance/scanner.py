"""The scanner: looks at everything again and again, and publishes what differs as ``governance.observations``.

One of several scanners works, the one that Kafka's group has given the observations' only partition; the others stand
by. The group merely keeps them from disturbing each other: what makes it right is that observations carry ids made of
topic and sequence, that a publisher fences the one before it, and that whoever opens one first reads all that was
published. So a scanner may die, be repeated or wake up late at any time.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog
from confluent_kafka import OFFSET_END

from headrace.governance.lake import Lake
from headrace.governance.observing import Known, Observation
from headrace.governance.registrations import Registrations
from headrace.governance.schema_ids import SchemaIds
from headrace.governance.sight import Eyes, Sight
from headrace.governance.waits import FIRST_WAIT_S, LONGEST_WAIT_S, PUBLISH_PATIENCE_S, told_if_slow
from headrace.producers.once import OncePublisher
from headrace.schemas.errors import Bug, HeadraceError, Unavailable
from headrace.streams.admin import Admin
from headrace.streams.reader import KafkaReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from threading import Event

    from headrace.governance.mesh_watch import MeshWatch

OBSERVATIONS = "governance.observations"
# A look each second, and no more than half of the time; one of a large mesh, which takes longer than this, rests ten
# times the excess, so that servers are not kept busy by being looked at.
PERIOD_S = 1.0
LARGE_S = 1.5
REST_FACTOR = 10
LEAST_REST_S = 0.1
# Asked again and again, so a request may be given up sooner than by people.
ADMIN_TIMEOUT_S = 5.0
_POLL_S = 0.2

_LOG = structlog.get_logger("headrace.scanner")


class ScannerWatcher(Protocol):
    """Is told how the scanner gets on, from its thread. It must neither block nor raise."""

    def scanned(self, seconds: float, observations: int) -> None:
        """It has looked at everything, which took so many seconds, and published so many observations."""
        ...

    def standing_by(self) -> None:
        """Another process scans."""
        ...

    def waiting(self, error: HeadraceError) -> None:
        """It waits for what the error names."""
        ...


class Scanner:
    """Scans a mesh.

    Args:
        watch: the mesh, as its files are.
        stop: ends everything when it is set.
        watcher: is told how it gets on.
    """

    def __init__(self, watch: MeshWatch, stop: Event, watcher: ScannerWatcher) -> None:
        self._watch = watch
        self._stop = stop
        self._watcher = watcher
        mesh = watch.current()
        self._config = mesh.environment.kafka_config()
        # A broker that comes up may not know the topic yet; by default the client asks again after five minutes.
        self._group_config = {"topic.metadata.refresh.interval.ms": "10000", **self._config}
        self._registry_config = mesh.environment.registry_config()
        self._topic = mesh.product(OBSERVATIONS).topic
        self._known = Known()
        self._lake = Lake()
        self._wait_s = FIRST_WAIT_S

    def run(self) -> None:
        """Scan while no other scanner does, until ``stop`` is set. Waits for what does not answer."""
        while not self._stop.is_set():
            lead = _Lead()
            try:
                with KafkaReader(self._group_config, self._topic, f"headrace.scanner.{self._topic}", lead) as reader:
                    self._take_turns(reader, lead)
            except HeadraceError as error:
                self._wait(error, self._stop.wait)

    def once(self) -> Sequence[HeadraceError]:
        """Scan until all that was there at one look has been published; waits for what does not answer.

        A scanner that works beside this one is fenced for a moment, and goes on.

        Returns:
            What could not be looked at, because only an operator can mend it.
        """
        faults: Sequence[HeadraceError] = ()
        done = False
        while not (done or self._stop.is_set()):
            try:
                with self._session(self._stop.wait) as scan:
                    while not (done or self._stop.is_set()):
                        sight = scan()
                        faults = sight.faults
                        done = sight.complete and not any(isinstance(fault, Unavailable) for fault in faults)
            except HeadraceError as error:
                self._wait(error, self._stop.wait)
        return faults

    def _take_turns(self, reader: KafkaReader, lead: _Lead) -> None:
        def pause(seconds: float) -> None:
            """Wait, and take part in the group meanwhile."""
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0 and not self._stop.is_set():
                reader.poll(min(left, _POLL_S))

        told = False
        # Whoever was thrown out of the group (the broker was away) joins it anew, with a client that knows nothing old.
        while not (self._stop.is_set() or lead.lost):
            pause(_POLL_S)
            if not lead.leads:
                if lead.asked and not told:
                    _LOG.info("standing by: another process scans")
                    self._watcher.standing_by()
                    told = True
                continue
            told = False
            try:
                self._scan_while(lead, pause)
            except HeadraceError as error:
                self._wait(error, pause)

    def _scan_while(self, lead: _Lead, pause: Callable[[float], None]) -> None:
        with self._session(pause) as scan:
            pace = Pace()
            while lead.leads and not self._stop.is_set():
                began_s = time.monotonic()
                sight = scan()
                took_s = time.monotonic() - began_s - sight.paused_s
                pause(pace.rest_s(took_s, complete=sight.complete))

    @contextmanager
    def _session(self, pause: Callable[[float], object]) -> Iterator[Callable[[], Sight]]:
        """Yield what scans once."""
        admin = Admin(self._config, request_timeout_s=ADMIN_TIMEOUT_S)

        def on_known(event: Mapping[str, object]) -> None:
            self._known.take(Observation.from_event(event))

        mesh = self._watch.current()
        with ExitStack() as stack:
            with told_if_slow(self._waiting, OBSERVATIONS):
                publisher = OncePublisher(
                    mesh,
                    OBSERVATIONS,
                    identity="scanner",
                    id_field="observation_id",
                    on_known=on_known,
                    patience_s=PUBLISH_PATIENCE_S,
                )
            stack.enter_context(publisher)
            group = f"headrace.scanner-positions.{self._topic}"
            schema_ids = stack.enter_context(SchemaIds(self._config, group, admin))
            registrations = stack.enter_context(Registrations(self._registry_config))
            eyes = Eyes(admin, schema_ids, registrations, self._lake, pause)
            _LOG.info("scanning", topics=len(self._known.topics()))
            yield lambda: self._scan(eyes, publisher)

    def _scan(self, eyes: Eyes, publisher: OncePublisher) -> Sight:
        began_s = time.monotonic()
        try:
            sight = eyes.look(self._watch.current(), self._known)
        except Unavailable as error:
            # Nothing is lost by it: what was read of the logs stays noted.
            self._wait(error, eyes.pause)
            return Sight((), complete=False, faults=())
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        news = [observation for state in sight.states if (observation := self._known.next(state, now)) is not None]
        if news:
            with told_if_slow(self._waiting, OBSERVATIONS):
                publisher.publish([observation.to_event() for observation in news])
            for observation in news:
                self._known.take(observation)
                _LOG.info(
                    "observed",
                    topic=observation.state.topic,
                    sequence=observation.sequence,
                    changes=list(observation.changes),
                )
        eyes.schema_ids.keep()
        self._wait_s = FIRST_WAIT_S
        self._watcher.scanned(time.monotonic() - began_s, len(news))
        for fault in sight.faults:
            _LOG.warning("a table is not looked at", what=fault.what, where=fault.where, next=fault.hint)
        return sight

    def _wait(self, error: HeadraceError, pause: Callable[[float], object]) -> None:
        if isinstance(error, Bug):
            raise error
        if self._stop.is_set():
            return
        self._waiting(error)
        pause(self._wait_s)
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)

    def _waiting(self, error: HeadraceError) -> None:
        _LOG.warning("waiting", what=error.what, where=error.where, next=error.hint)
        self._watcher.waiting(error)


class Pace:
    """Says how long to rest after each look."""

    def __init__(self) -> None:
        self._before_s = 0.0

    def rest_s(self, took_s: float, *, complete: bool) -> float:
        """Return how long to rest after a look that took so long.

        A large mesh makes every look long; a server that was away makes one long, and says nothing about the next.
        """
        usual_s = min(took_s, self._before_s)
        self._before_s = took_s if complete else 0.0
        # What is left of a long log is read at once.
        return rest_s(usual_s) if complete else LEAST_REST_S


def rest_s(took_s: float) -> float:
    """Return how long to rest where a look takes so long."""
    return max(PERIOD_S - took_s, min(took_s, PERIOD_S), REST_FACTOR * (took_s - LARGE_S), LEAST_REST_S)


class _Lead:
    """Whether this process is the one that scans: it has the observations' only partition."""

    def __init__(self) -> None:
        self.leads = self.asked = self.lost = False

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """See :class:`headrace.streams.reader.Rebalance`. Nothing of what is there is wanted."""
        self.asked = True
        self.leads = self.leads or bool(partitions)
        return dict.fromkeys(partitions, OFFSET_END)

    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        """See :class:`headrace.streams.reader.Rebalance`. What is under way ends fenced, or is right all the same."""
        if partitions:
            self.leads = False
        self.lost = self.lost or lost
