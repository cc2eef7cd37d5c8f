"""The findings that are open, by topic: a fold of the findings' events, which judges observations. Pure.

What an observation opens or closes follows from it and from the events before it alone, and so do the events' ids:
whoever judges it again, after a crash too, comes to the same events or to none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid5

from headrace.governance.observing import NAMESPACE
from headrace.governance.rules import violations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from headrace.governance.observing import Observation
    from headrace.governance.rules import Violation

__all__ = ["Docket", "Finding"]

OPEN, CLOSED = "OPEN", "CLOSED"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something against the mesh's rules, as its newest event says.

    Attributes:
        finding_id: tells it from others of the same rule and matter before and after it.
        status: ``OPEN`` or ``CLOSED``.
        at: when this status was observed.
        opened_at: when it was observed first.
        rule: a stable kebab-case code.
        topic: the topic that it is about.
        product: ``domain.product``, None if the topic belongs to none.
        matter: what the rule speaks of: a schema id, a level, a field's path.
        what: what is wrong, in one sentence.
        next: what to do about it.
        observation_id: the observation that opened or closed it.
        sequence: of that observation, among those of its topic.
    """

    finding_id: str
    status: str
    at: datetime
    opened_at: datetime
    rule: str
    topic: str
    product: str | None
    matter: str
    what: str
    next: str
    observation_id: str
    sequence: int

    @property
    def open(self) -> bool:
        """Whether its cause is still there."""
        return self.status == OPEN

    @property
    def event_id(self) -> str:
        """The UUID that every repeat of this event carries."""
        return str(uuid5(NAMESPACE, f"{self.finding_id} {self.status}"))

    def to_event(self) -> dict[str, Any]:
        """Return the event of ``governance.findings``."""
        return {"event_id": self.event_id, **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Finding:
        """Read an event, or a table's row, of ``governance.findings``."""
        return cls(**{name: event[name] for name in cls.__slots__})

    @classmethod
    def opened(cls, violation: Violation, observation: Observation) -> Finding:
        """Return the finding that an observation opens."""
        topic, sequence = observation.state.topic, observation.sequence
        return cls(
            finding_id=str(uuid5(NAMESPACE, f"{topic} {violation.rule} {violation.matter} {sequence}")),
            status=OPEN,
            at=observation.observed_at,
            opened_at=observation.observed_at,
            rule=violation.rule,
            topic=topic,
            product=observation.state.product,
            matter=violation.matter,
            what=violation.what,
            next=violation.next,
            observation_id=observation.observation_id,
            sequence=sequence,
        )

    def closed(self, observation: Observation) -> Finding:
        """Return the finding as an observation closes it."""
        return replace(
            self,
            status=CLOSED,
            at=observation.observed_at,
            observation_id=observation.observation_id,
            sequence=observation.sequence,
        )


class Docket:
    """What is open, and up to which observation each topic was judged with effect."""

    def __init__(self) -> None:
        self._open: dict[str, dict[tuple[str, str], Finding]] = {}
        self._judged: dict[str, int] = {}

    def take(self, finding: Finding) -> None:
        """Take an event that was published, in the order of the topic; repeats do no harm."""
        if finding.sequence < self._judged.get(finding.topic, 0):
            return
        self._judged[finding.topic] = finding.sequence
        open_ones = self._open.setdefault(finding.topic, {})
        if finding.open:
            open_ones[finding.rule, finding.matter] = finding
        else:
            open_ones.pop((finding.rule, finding.matter), None)

    def judge(self, observation: Observation) -> tuple[Finding, ...]:
        """Return what an observation closes and opens. `take` it when it is published.

        An observation at or before the last one with an effect has none: it was judged before.
        """
        topic = observation.state.topic
        if observation.sequence <= self._judged.get(topic, 0):
            return ()
        open_ones = self._open.get(topic, {})
        broken = {(violation.rule, violation.matter): violation for violation in violations(observation.state)}
        closed = [finding.closed(observation) for key, finding in open_ones.items() if key not in broken]
        opened = [Finding.opened(violation, observation) for key, violation in broken.items() if key not in open_ones]
        return tuple(sorted(closed + opened, key=lambda finding: (finding.open, finding.rule, finding.matter)))

    @property
    def open_count(self) -> int:
        """How many findings are open."""
        return sum(map(len, self._open.values()))
