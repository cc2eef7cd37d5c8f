"""Judging observations, and publishing what they open and close as ``governance.findings``, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import structlog

from headrace.governance.docket import Docket, Finding
from headrace.governance.observing import Observation
from headrace.governance.waits import FIRST_WAIT_S, LONGEST_WAIT_S, PUBLISH_PATIENCE_S, told_if_slow
from headrace.producers.once import OncePublisher
from headrace.schemas.errors import Bug, HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import Event

    from headrace.schemas.mesh import Mesh

FINDINGS = "governance.findings"

_LOG = structlog.get_logger("headrace.auditor")


class JudgeWatcher(Protocol):
    """Is told how the judging gets on, from its thread. It must neither block nor raise."""

    def judging(self, open_findings: int) -> None:
        """The application has observations to judge; so many findings are open now."""
        ...

    def standing_by(self) -> None:
        """Another process judges."""
        ...

    def judged(self, opened: int, closed: int) -> None:
        """An observation was judged, and what it opens and closes is published."""
        ...

    def waiting(self, error: HeadraceError) -> None:
        """It waits for what the error names."""
        ...


class Judge:
    """Judges observations one after the other. State is what its own product holds, read when it begins.

    For one thread at a time. An observation may be judged any number of times, by any number of processes: what it
    opens and closes is published once. A judge that begins fences the one before it.
    """

    def __init__(self, mesh: Mesh, watcher: JudgeWatcher) -> None:
        self._mesh = mesh
        self._watcher = watcher
        self._docket = Docket()
        self._publisher: OncePublisher | None = None

    def begin(self, over: Event) -> bool:
        """Read what was found so far; False if ``over`` was set before that was possible."""
        return self._until(over, lambda: None)

    def judge(self, event: Mapping[str, Any], over: Event) -> bool:
        """Judge an event of ``governance.observations``; return when what follows from it is published.

        Waits for what does not answer; False if ``over`` was set meanwhile, and nobody knows what was published.
        """
        observation = Observation.from_event(event)
        return self._until(over, lambda: self._judge(observation))

    def end(self) -> None:
        """Publish nothing more until it begins again."""
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def stand_by(self) -> None:
        """Tell that another process judges."""
        _LOG.info("standing by: another process judges")
        self._watcher.standing_by()

    def _until(self, over: Event, action: Callable[[], None]) -> bool:
        wait_s = FIRST_WAIT_S
        while not over.is_set():
            try:
                self._begin()
                action()
            except Bug:
                raise
            except HeadraceError as error:
                # Whether it was published is seen when the product is read again.
                self.end()
                self.waiting(error)
                over.wait(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                return True
        return False

    def _begin(self) -> None:
        if self._publisher is not None:
            return
        docket = Docket()
        with told_if_slow(self.waiting, FINDINGS):
            self._publisher = OncePublisher(
                self._mesh,
                FINDINGS,
                identity="auditor",
                id_field="event_id",
                on_known=lambda event: docket.take(Finding.from_event(event)),
                patience_s=PUBLISH_PATIENCE_S,
            )
        self._docket = docket
        _LOG.info("judging", open_findings=docket.open_count)
        self._watcher.judging(docket.open_count)

    def _judge(self, observation: Observation) -> None:
        findings = self._docket.judge(observation)
        if self._publisher is None:
            raise Bug("an observation was judged before the findings were read")
        with told_if_slow(self.waiting, FINDINGS):
            self._publisher.publish([finding.to_event() for finding in findings])
        for finding in findings:
            self._docket.take(finding)
            log = _LOG.warning if finding.open else _LOG.info
            log(
                "finding opened" if finding.open else "finding closed",
                rule=finding.rule,
                topic=finding.topic,
                what=finding.what,
                next=finding.next,
            )
        opened = sum(finding.open for finding in findings)
        self._watcher.judged(opened, len(findings) - opened)
        self._watcher.judging(self._docket.open_count)

    def waiting(self, error: HeadraceError) -> None:
        """Tell what is waited for."""
        _LOG.warning("waiting", what=error.what, where=error.where, next=error.hint)
        self._watcher.waiting(error)
