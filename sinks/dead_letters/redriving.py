"""Which dead letters can be put back into a table, and what became of each. Pure.

A letter can be put back if it came from the topic that the table follows, lies before the table's position in its
partition (what lies behind, the sink reads by itself), and is not in the table. Of a topic that the table has followed
before, every letter lies before: nobody reads that one again. Whether a letter can be read by now, only decoding tells.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa

from headrace.sinks.batch import Chunk
from headrace.streams.frames import Frame, Longs, Messages, frames_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from headrace.sinks.batch import Letter
    from headrace.sinks.dead_letters.message import Kept
    from headrace.streams.ledger import Ledger

# Partition and offset.
Place: TypeAlias = tuple[int, int]
# The topic's id, the generation, and whether the letter says its original's timestamp.
Origin: TypeAlias = tuple[str, int | None, bool]

_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Wish:
    """Which letters an operator asks for; what is None asks for all.

    Attributes:
        reason: those that were refused for this reason.
        partition: those of this partition …
        offset: … and of this offset.
    """

    reason: str | None = None
    partition: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        """Say it behind "dead letters": empty for all of them."""
        said = {"reason": self.reason, "partition": self.partition, "offset": self.offset}
        parts = [f"{name} {value}" for name, value in said.items() if value is not None]
        return f" of {', '.join(parts)}" if parts else ""

    def covers(self, letter: Letter) -> bool:
        """Tell whether a letter is asked for."""
        return (
            self.reason in {None, letter.reason}
            and self.partition in {None, letter.partition}
            and self.offset in {None, letter.offset}
        )


@dataclass(slots=True)
class Seen:
    """The letters that have been seen: one that comes again counts once. Holds 8 bytes a letter.

    Two letters of one place are one letter only if they came from the same topic in the same generation: a topic that
    was made anew has the same offsets. And one that says its timestamp does not come again in one that does not.
    """

    _offsets: dict[tuple[Origin, int], Longs] = field(default_factory=dict)

    def new(self, kept: Iterable[Kept]) -> list[Kept]:
        """Return those that were not seen before, of repeats the last one, and remember them."""
        by_origin: dict[Origin, dict[Place, Kept]] = {}
        for each in kept:
            by_origin.setdefault((each.topic_id, each.generation, each.timed), {})[place_of(each.letter)] = each
        found: list[Kept] = []
        for origin, last in by_origin.items():
            for partition, offsets in by_partition(last).items():
                before = self._offsets.get((origin, partition), _NOTHING)
                new = np.setdiff1d(offsets, before)
                self._offsets[origin, partition] = np.union1d(before, new)
                found += [last[partition, offset] for offset in new.tolist()]
        return found


@dataclass(slots=True)
class Tally:
    """What became of letters.

    Attributes:
        put_back: they were put into the table.
        held: they were in the table already.
        ahead: the sink has not passed them yet: it reads them itself.
        refused: they still cannot become rows, by the reason now.
        untimed: not in the table, and without their timestamp, as an earlier headrace wrote them: they make no row.
        others: they came from another topic of the name, or from another generation.
        hints: what to do about a reason, where something is known that does not hold in general.
    """

    put_back: int = 0
    held: int = 0
    ahead: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    untimed: int = 0
    others: int = 0
    hints: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sorted:
    """Letters, as one ledger sees them. ``passed`` and ``untimed`` are to be looked for in the table."""

    passed: tuple[Kept, ...]
    ahead: int
    untimed: tuple[Kept, ...]
    others: int


def sorted_by(ledger: Ledger | None, kept: Iterable[Kept]) -> Sorted:
    """Sort letters by what a table's ledger says; None: it holds nothing, so the sink has passed none of them."""
    passed: list[Kept] = []
    untimed: list[Kept] = []
    ahead = others = 0
    for each in kept:
        if ledger is not None and not each.of(ledger):
            others += 1
        elif ledger is None or each.letter.offset >= ledger.next(each.letter.partition):
            ahead += 1
        elif not each.timed:
            untimed.append(each)
        else:
            passed.append(each)
    return Sorted(tuple(passed), ahead, tuple(untimed), others)


def by_topic(kept: Iterable[Kept]) -> Iterator[Sequence[Kept]]:
    """Yield letters, those of one topic together."""
    found: dict[str, list[Kept]] = {}
    for each in kept:
        found.setdefault(each.topic_id, []).append(each)
    yield from found.values()


def place_of(letter: Letter) -> Place:
    """Return a letter's partition and offset."""
    return letter.partition, letter.offset


def by_partition(places: Iterable[Place]) -> Mapping[int, Longs]:
    """Return the offsets of places by partition, ascending."""
    found: dict[int, list[int]] = {}
    for partition, offset in places:
        found.setdefault(partition, []).append(offset)
    return {partition: np.unique(np.array(offsets, np.int64)) for partition, offsets in sorted(found.items())}


def places_in(offsets: Mapping[int, Longs]) -> frozenset[Place]:
    """Return offsets by partition as places."""
    return frozenset((partition, offset) for partition, some in offsets.items() for offset in some.tolist())


def frames_from(letters: Collection[Letter]) -> Iterator[Frame]:
    """Return letters as the frames that they would be in if they were read from their topic now."""
    if not letters:
        return iter(())
    ordered = sorted(letters, key=place_of)
    messages = Messages(
        partitions=np.array([letter.partition for letter in ordered], np.int32),
        offsets=np.array([letter.offset for letter in ordered], np.int64),
        timestamps_ms=np.array([letter.timestamp_ms for letter in ordered], np.int64),
        keys=pa.array([letter.key for letter in ordered], pa.binary()),
        values=pa.array([letter.value for letter in ordered], pa.binary()),
    )
    return frames_of(messages)


def only(chunks: Sequence[Chunk], places: Collection[Place]) -> list[Chunk]:
    """Return the rows of chunks that lie at these places."""
    wanted = by_partition(places)
    found = []
    for chunk in chunks:
        kept = np.isin(chunk.offsets, wanted.get(chunk.partition, _NOTHING))
        if kept.any():
            mask = pa.array(kept)
            events = chunk.events.filter(mask) if chunk.events is not None else None
            offsets, stamps = chunk.offsets[kept], chunk.timestamps_ms[kept]
            found.append(Chunk(chunk.partition, chunk.schema_id, events, offsets, stamps, chunk.keys.filter(mask)))
    return found
