"""What of a topic is not in its table yet, and what went to the dead letters: counted by reading, as `verify` counts.

Offsets alone tell neither: between two events lie the ends of transactions and events that were aborted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headrace.governance.logs import read_letters, read_marks
from headrace.streams.admin import Watermarks
from headrace.streams.ledger import REDRIVE_KEY, SUMMARY_KEY
from headrace.streams.rows import rows_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table

    from headrace.governance.marks import Longs, Marks
    from headrace.schemas.product import Product
    from headrace.streams.admin import Topic
    from headrace.streams.ledger import Ledger

__all__ = ["COUNTED_OFFSETS", "DeadLetterBox", "Lag", "LetterRows", "lag_of"]

# So many offsets are read within a second. Behind more of them, how many exactly helps nobody.
COUNTED_OFFSETS = 200_000
# Where the first event of a partition is looked for at first; ten times as far each time that there is none.
_WINDOW_OFFSETS = 100
_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Lag:
    """What of a topic is not in its table yet.

    Attributes:
        rows: committed events behind the ledger's positions that are no dead letters.
        exact: whether ``rows`` was counted. False: it is the number of offsets, an upper bound.
        seconds: the age of the oldest of these events (of the first ones, where ``rows`` is a bound), by its
            timestamp; 0 if there are none, None if none of them has a timestamp.
    """

    rows: int
    exact: bool
    seconds: float | None


def lag_of(
    config: Mapping[str, str],
    topic: Topic,
    behind: Mapping[int, Watermarks],
    letters: Mapping[int, Longs],
    now_s: float,
) -> Lag:
    """Return the lag of a table.

    Args:
        config: the environment's librdkafka properties.
        topic: the topic.
        behind: from the ledger's position to the log's end, by partition.
        letters: offsets of dead letters by partition.
        now_s: seconds since 1970 UTC.

    Raises:
        Unavailable, SettingsError, UserError: as `headrace.governance.logs.read_marks`.
    """
    offsets = sum(bound.end - bound.low for bound in behind.values())
    if not offsets:
        return Lag(0, exact=True, seconds=0.0)
    if offsets > COUNTED_OFFSETS:
        return Lag(offsets, exact=False, seconds=_age_s(_first_events(config, topic, behind, letters), now_s))
    events = _events(config, topic, behind, letters)
    return Lag(sum(map(len, events.values())), exact=True, seconds=_age_s(events, now_s))


def _events(
    config: Mapping[str, str], topic: Topic, bounds: Mapping[int, Watermarks], letters: Mapping[int, Longs]
) -> Mapping[int, Marks]:
    return {
        partition: marks.pick(~np.isin(marks.offsets, letters.get(partition, _NOTHING)))
        for partition, marks in read_marks(config, topic, bounds).items()
    }


def _first_events(
    config: Mapping[str, str], topic: Topic, bounds: Mapping[int, Watermarks], letters: Mapping[int, Longs]
) -> Mapping[int, Marks]:
    """Return some of the first events of each partition that has any."""
    found: dict[int, Marks] = {}
    left, window = dict(bounds), _WINDOW_OFFSETS
    while left:
        parts = {p: Watermarks(bound.low, min(bound.low + window, bound.end)) for p, bound in left.items()}
        found |= {p: marks for p, marks in _events(config, topic, parts, letters).items() if len(marks)}
        left = {p: Watermarks(parts[p].end, bound.end) for p, bound in left.items() if p not in found}
        left = {p: bound for p, bound in left.items() if bound.low < bound.end}
        window *= 10
    return found


def _age_s(events: Mapping[int, Marks], now_s: float) -> float | None:
    stamps = np.concatenate([marks.timestamps_ms for marks in events.values()]) if events else _NOTHING
    if not len(stamps):
        return 0.0
    stamps = stamps[stamps >= 0]
    return max(now_s - float(stamps.min()) / 1_000, 0.0) if len(stamps) else None


@dataclass(slots=True)
class DeadLetterBox:
    """A product's dead letters. Each is read once, however often they are looked at. Not for several threads."""

    _topics: tuple[str, str] | None = None
    _bounds: Mapping[int, Watermarks] = field(default_factory=dict)
    _found: dict[int, Longs] = field(default_factory=dict)

    def offsets(
        self, config: Mapping[str, str], topic: Topic, letters: Topic, bounds: Mapping[int, Watermarks]
    ) -> Mapping[int, Longs]:
        """Return the distinct offsets of the topic's dead letters by the partition that they came from, sorted.

        Args:
            config: the environment's librdkafka properties.
            topic: the topic.
            letters: its dead-letter topic.
            bounds: the dead-letter topic's bounds.

        Raises:
            Unavailable, SettingsError, UserError: as `headrace.governance.logs.read_letters`.
        """
        known = self._bounds
        if self._topics != (topic.id, letters.id) or any(
            p not in bounds or bounds[p].low != bound.low or bounds[p].end < bound.end for p, bound in known.items()
        ):
            # Another topic, or letters were deleted: what was read before does not count any more.
            self._topics, self._bounds, self._found = (topic.id, letters.id), {}, {}
            known = self._bounds
        news = {p: Watermarks(known[p].end if p in known else bound.low, bound.end) for p, bound in bounds.items()}
        if any(bound.low < bound.end for bound in news.values()):
            for partition, offsets in read_letters(config, letters, news, topic).items():
                self._found[partition] = np.union1d(self._found.get(partition, _NOTHING), offsets)
        self._bounds = dict(bounds)
        return self._found


@dataclass(slots=True)
class LetterRows:
    """Dead letters whose events have rows all the same. Each letter is compared with the table once. Not for threads.

    A sink's further commits change nothing about the offsets before them; any other snapshot may, a redrive above all,
    and then all letters are compared again.
    """

    _seen: tuple[int, int] | None = None
    _compared: dict[int, Longs] = field(default_factory=dict)
    _held: dict[int, Longs] = field(default_factory=dict)

    def count(self, table: Table, product: Product, ledger: Ledger, letters: Mapping[int, Longs]) -> int:
        """Return how many of these letters, offsets by partition, have rows in the table.

        Raises:
            Unavailable, ProductStopped: as `rows_at`.
        """
        head = table.current_snapshot()
        if head is None:
            return 0
        if self._seen is None or self._seen[1] != ledger.generation or not _only_sinks_since(table, self._seen[0]):
            self._compared, self._held = {}, {}
        landed = {p: offsets[offsets < ledger.next(p)] for p, offsets in letters.items()}
        news = {p: np.setdiff1d(offsets, self._compared.get(p, _NOTHING)) for p, offsets in landed.items()}
        for partition, offsets in rows_at(table, product, ledger.generation, news).items():
            self._held[partition] = np.union1d(self._held.get(partition, _NOTHING), offsets)
        for partition, offsets in news.items():
            self._compared[partition] = np.union1d(self._compared.get(partition, _NOTHING), offsets)
        self._seen = (head.snapshot_id, ledger.generation)
        return sum(len(np.intersect1d(landed[p], held)) for p, held in self._held.items() if p in landed)


def _only_sinks_since(table: Table, snapshot_id: int) -> bool:
    """Tell whether a snapshot is still behind the branch's head, and all on top of it carries a sink's ledger."""
    snapshot = table.current_snapshot()
    while snapshot is not None and snapshot.snapshot_id != snapshot_id:
        said = snapshot.summary.additional_properties if snapshot.summary else {}
        if SUMMARY_KEY not in said or REDRIVE_KEY in said:
            return False
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else table.metadata.snapshot_by_id(parent)
    return snapshot is not None
