"""What a comparison of two versions finds, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["ABSENT", "Breaks", "Finding", "Layer", "Report"]

# What stands for a field, or a promise, that one of the two sides does not have.
ABSENT = "absent"


class Layer(StrEnum):
    """Who has a say in whether a change is safe."""

    AVRO = "avro"
    LOGICAL = "logical"
    TABLE = "table"
    GOVERNANCE = "governance"


class Breaks(StrEnum):
    """Who breaks."""

    READER_OF_OLD_EVENTS = "reader of old events"
    READER_OF_NEW_EVENTS = "reader of new events"
    TABLE = "the table"
    MASK = "the mask"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a change breaks.

    Attributes:
        layer: whose rule it is.
        rule: a stable code, such as ``TYPE_MISMATCH``.
        path: the field (``order.items[].price``), or the place in the contract (``slaProperties.latency``); empty for
            the event's record itself.
        old: what stood there, in short: ``int``, ``decimal(10,2)``, ``absent``.
        new: what stands there now, in short.
        breaks: who breaks.
        hint: what to do instead.
        against: which of the old versions have it, by position from 1, oldest first.
    """

    layer: Layer
    rule: str
    path: str
    old: str
    new: str
    breaks: Breaks
    hint: str
    against: tuple[int, ...] = (1,)


@dataclass(frozen=True, slots=True)
class Report:
    """All that a comparison found.

    Attributes:
        findings: in the order of the layers, then of the schema's fields.
        changes: what a table that followed the old versions will do, as
            `headrace.schemas.changes.described` writes it; empty if it does nothing, or refuses the version.
    """

    findings: tuple[Finding, ...]
    changes: tuple[tuple[str, ...], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def compatible(self) -> bool:
        """The verdict of Avro's rules alone, which is a schema registry's."""
        return not any(finding.layer is Layer.AVRO for finding in self.findings)
