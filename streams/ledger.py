"""The ledger: what a product's table holds of its topic. It lies in the table's own snapshots. Pure.

Every snapshot that headrace makes carries the *whole* ledger in its summary, so rolling a table back rewinds its sink,
and one table alone tells how far it has come. Reading it is a walk from the branch's head through the parents.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from headrace.schemas.errors import DamagedLedger, ProductStopped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# In a snapshot's summary; and, repeated for tables whose history others have expired, in a property of the table.
SUMMARY_KEY = "headrace.ledger"
PROPERTY_KEY = "headrace.ledger.main"
# In the summary of a snapshot of headrace's own that landed before the table had a ledger: nothing lies behind it.
BEGINNING_KEY = "headrace.ledger.none"
# In the summary of a snapshot that added rows which had been dead letters, before its ledger's positions: what was
# asked for and how many rows there were, for people.
REDRIVE_KEY = "headrace.redrive"
# In the summary of a snapshot that was made on another branch than main: it may hold half a table.
BRANCH_KEY = "headrace.branch"
# The record of accepted gaps came later and is part of format 1: whoever does not know it reads every position right,
# and merely forgets the record.
FORMAT = 1
# Some catalogs bound a request's size; 32 kB hold about a thousand partitions.
MAX_BYTES = 32_768
# Kafka's offsets have 64 bits; and no moment that people are told of lies behind the year 9999.
_LAST_OFFSET = 2**63 - 1
_LAST_S = 253_402_300_799
REPAIR_HINT = "`headrace ledger show` shows both sides, `headrace ledger repair` makes a ledger from the rows"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a partition is in the table.

    Attributes:
        next: the next offset to read.
        last_row: the offset of the partition's last row in the table; None: no row yet.
    """

    next: int
    last_row: int | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """What one batch holds of a partition: offsets from ``start`` up to, not including, ``end``.

    ``last_row`` is the offset of its last row; None where it holds none (only control records, or all refused).
    """

    start: int
    end: int
    last_row: int | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Offsets that Kafka deleted before the table held them, accepted as lost: ``first`` up to, not including, ``end``.

    ``at_s`` is when an operator accepted them: seconds since 1970 UTC.
    """

    first: int
    end: int
    at_s: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a table holds of a topic.

    Attributes:
        topic_id: Kafka's UUID of the topic; a topic made anew has another.
        generation: counts the topics that the table has followed, from 1.
        positions: every partition that has been begun.
        added: what the snapshot that carries this ledger added, by partition.
        origin: partitions whose log began above 0 when the table first followed them, with that first offset.
        accepted: what was accepted as lost, by partition and ascending. A record for people: nothing depends on it.
    """

    topic_id: str
    generation: int
    positions: Mapping[int, Position]
    added: Mapping[int, Range]
    origin: Mapping[int, int]
    accepted: Mapping[int, Sequence[Accepted]] = field(default_factory=dict)

    @classmethod
    def begin(cls, topic_id: str, lows: Mapping[int, int]) -> Ledger:
        """Return the ledger of a table that holds nothing yet: every partition starts where its log begins."""
        return cls(
            topic_id=topic_id,
            generation=1,
            positions={partition: Position(low) for partition, low in lows.items()},
            added={},
            origin={partition: low for partition, low in lows.items() if low > 0},
        )

    def at_origin(self) -> Ledger:
        """Return the ledger of a table that holds nothing of this topic: where the first start would begin."""
        return Ledger.begin(self.topic_id, {partition: self.origin.get(partition, 0) for partition in self.positions})

    def next(self, partition: int) -> int:
        """Return the next offset to read of a partition; 0 for one that was added to the topic later."""
        position = self.positions.get(partition)
        return position.next if position else 0

    def advanced(self, ranges: Mapping[int, Range]) -> Ledger:
        """Return the ledger after a batch has landed."""
        moved = {
            partition: Position(
                covered.end, covered.last_row if covered.last_row is not None else self._last_row(partition)
            )
            for partition, covered in ranges.items()
        }
        return replace(self, positions={**self.positions, **moved}, added=dict(ranges))

    def accepting(self, lost: Mapping[int, Accepted]) -> Ledger:
        """Return the ledger after gaps were accepted, one a partition: its positions lie behind them."""
        moved = {partition: Position(gap.end, self._last_row(partition)) for partition, gap in lost.items()}
        known = {partition: _with(self.accepted.get(partition, ()), gap) for partition, gap in lost.items()}
        return replace(self, positions={**self.positions, **moved}, added={}, accepted={**self.accepted, **known})

    def redriven(self, offsets: Mapping[int, int]) -> Ledger:
        """Return the ledger after rows were added before its positions, which stay; nothing was read for them.

        Args:
            offsets: the highest offset among these rows, by partition.
        """
        last_rows = {partition: self._last_row(partition) for partition in offsets}
        rows = {p: offset if (last := last_rows[p]) is None else max(offset, last) for p, offset in offsets.items()}
        moved = {partition: Position(self.next(partition), row) for partition, row in rows.items()}
        return replace(self, positions={**self.positions, **moved}, added={})

    def adding_nothing(self) -> Ledger:
        """Return the ledger for a snapshot that adds nothing and moves nothing."""
        return replace(self, added={})

    def _last_row(self, partition: int) -> int | None:
        position = self.positions.get(partition)
        return position.last_row if position else None

    def to_json(self, *, snapshot_id: int | None = None) -> str:
        """Return the ledger as compact JSON.

        Where there is no room for all that was accepted, the oldest is left out; the snapshot that accepted it told it.

        Args:
            snapshot_id: for the table's property: the snapshot whose ledger this repeats.

        Raises:
            ProductStopped: if it is larger than 32 kB.
        """
        places = [(partition, gap) for partition, gaps_of in self.accepted.items() for gap in gaps_of]
        text = self._json(places, snapshot_id)
        while len(text) > MAX_BYTES and places:
            places = sorted(places, key=lambda place: place[1].at_s)[(len(places) + 1) // 2 :]
            text = self._json(places, snapshot_id)
        if len(text) > MAX_BYTES:
            raise ProductStopped(
                f"the ledger of {len(self.positions)} partitions is larger than {MAX_BYTES:,} bytes",
                hint="give the topic fewer partitions",
            )
        return text

    def _json(self, accepted: Sequence[tuple[int, Accepted]], snapshot_id: int | None) -> str:
        document: dict[str, Any] = {
            "v": FORMAT,
            "topic": self.topic_id,
            "generation": self.generation,
            "positions": {str(p): [at.next, at.last_row] for p, at in sorted(self.positions.items())},
            "added": {str(p): [of.start, of.end, of.last_row] for p, of in sorted(self.added.items())},
        }
        if self.origin:
            document["origin"] = {str(p): offset for p, offset in sorted(self.origin.items())}
        for p, gap in sorted(accepted, key=lambda place: (place[0], place[1].first)):
            document.setdefault("accepted", {}).setdefault(str(p), []).append([gap.first, gap.end, gap.at_s])
        if snapshot_id is not None:
            document["snapshot"] = snapshot_id
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Parse a ledger.

        Raises:
            DamagedLedger: if it cannot be read.
            ProductStopped: if it is of a format that this version of headrace does not know.
        """
        try:
            document = json.loads(text)
            if document["v"] != FORMAT:
                raise ProductStopped(
                    f"the ledger has format {document['v']}, this headrace knows {FORMAT}",
                    hint="upgrade headrace, or run the version that wrote the table",
                )
            return cls(
                topic_id=_text(document["topic"]),
                generation=_offset(document["generation"]),
                positions={int(p): Position(_offset(n), _row(row)) for p, (n, row) in document["positions"].items()},
                added={
                    int(p): Range(_offset(start), _offset(end), _row(row))
                    for p, (start, end, row) in document["added"].items()
                },
                origin={int(p): _offset(offset) for p, offset in document.get("origin", {}).items()},
                accepted={
                    int(p): tuple(
                        Accepted(_offset(first), _offset(end), _number(at_s, _LAST_S)) for first, end, at_s in gaps_of
                    )
                    for p, gaps_of in document.get("accepted", {}).items()
                },
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedLedger(
                f"the ledger in the table cannot be read ({type(error).__name__}): somebody has changed it",
                hint=REPAIR_HINT,
            ) from None


def _with(known: Sequence[Accepted], gap: Accepted) -> tuple[Accepted, ...]:
    """Return the known ranges and one behind them; one that begins where the last one ends makes it longer."""
    if known and known[-1].end >= gap.first:
        return (*known[:-1], Accepted(known[-1].first, max(known[-1].end, gap.end), gap.at_s))
    return (*known, gap)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _offset(value: object) -> int:
    return _number(value, _LAST_OFFSET)


def _number(value: object, last: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= last:
        raise TypeError("number")
    return value


def _row(value: object) -> int | None:
    return None if value is None else _offset(value)


def gaps(ledger: Ledger, lows: Mapping[int, int]) -> Iterable[tuple[int, int, int]]:
    """Yield partition, first and behind-last offset of what Kafka has deleted before the table held it."""
    for partition, low in sorted(lows.items()):
        position = ledger.next(partition)
        if position < low:
            yield partition, position, low
