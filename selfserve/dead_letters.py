"""A product's dead letters, counted by reason, and where each of them is: open, in the table, or still to be read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from headrace.schemas.catalog import load_table
from headrace.sinks.dead_letters.redriving import by_partition, place_of
from headrace.streams.history import read_ledger
from headrace.streams.rows import rows_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.dead_letters.message import Kept
    from headrace.sinks.dead_letters.redriving import Place, Wish
    from headrace.streams.frames import Longs
    from headrace.streams.ledger import Ledger

__all__ = ["Facts", "Letters", "State", "find_letter", "look_at_letters", "state_of"]


class State(StrEnum):
    """Where a letter is."""

    OPEN = "open"
    IN_TABLE = "in the table"
    AHEAD = "not yet passed by the sink"


_OPEN, _IN_TABLE, _AHEAD = range(len(State))
_Codes: TypeAlias = "np.ndarray[Any, np.dtype[np.int32]]"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is shown of a letter."""

    partition: int
    offset: int
    timestamp_ms: int
    reason: str
    schema_id: int | None
    key_bytes: int | None
    value_bytes: int | None
    header_names: tuple[str, ...]
    refused_ms: int

    @classmethod
    def of(cls, kept: Kept) -> Facts:
        """Return what is shown of a letter."""
        letter = kept.letter
        return cls(
            letter.partition,
            letter.offset,
            letter.timestamp_ms,
            letter.reason,
            letter.schema_id,
            None if letter.key is None else len(letter.key),
            None if letter.value is None else len(letter.value),
            tuple(name for name, _ in letter.headers),
            kept.refused_ms,
        )

    @property
    def place(self) -> Place:
        """Its partition and offset."""
        return self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Letters:
    """A product's dead letters.

    Attributes:
        product: the product.
        counts: how many distinct letters there are, by reason and state.
        others: messages that came from another topic of the name, or from another generation.
        newest: the last ones, the newest first, each with its state.
        wish: which of its letters these are.
    """

    product: Product
    counts: Mapping[tuple[str, State], int]
    others: int
    newest: Sequence[tuple[Facts, State]]
    wish: Wish

    def total(self, state: State) -> int:
        """Return how many letters are in a state."""
        return sum(count for (_, each), count in self.counts.items() if each is state)


@dataclass(slots=True)
class _Gathered:
    """Letters as they are read: the reason of each place, in 12 bytes, and the facts of the newest."""

    limit: int
    reasons: dict[str, int] = field(default_factory=dict)
    places: dict[int, tuple[Longs, _Codes]] = field(default_factory=dict)
    newest: dict[Place, Facts] = field(default_factory=dict)

    def take(self, portion: Iterable[Kept]) -> None:
        """Take letters; of those of one place the last one's reason counts."""
        found: dict[int, dict[int, int]] = {}
        for kept in portion:
            partition, offset = place = place_of(kept.letter)
            code = self.reasons.setdefault(kept.letter.reason, len(self.reasons))
            found.setdefault(partition, {})[offset] = code
            self.newest[place] = Facts.of(kept)
            if len(self.newest) > 2 * self.limit + 1_000:
                self.newest = {each.place: each for each in self.last()}
        for partition, codes in found.items():
            self._add(partition, np.array(list(codes), np.int64), np.array(list(codes.values()), np.int32))

    def _add(self, partition: int, offsets: Longs, codes: _Codes) -> None:
        if partition in self.places:
            before, known = self.places[partition]
            kept = ~np.isin(before, offsets)
            offsets, codes = np.concatenate([before[kept], offsets]), np.concatenate([known[kept], codes])
        self.places[partition] = offsets, codes

    def last(self) -> list[Facts]:
        """Return the newest letters, the newest first."""
        ordered = sorted(self.newest.values(), key=lambda each: (each.refused_ms, each.place), reverse=True)
        return ordered[: self.limit]

    def counts(self, sides: _Sides) -> Counter[tuple[str, State]]:
        """Return how many letters there are, by reason and state."""
        reasons, states, found = list(self.reasons), list(State), Counter[tuple[str, State]]()
        for partition, (offsets, codes) in self.places.items():
            kinds, counts = np.unique(codes * len(states) + sides.states(partition, offsets), return_counts=True)
            for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
                code, state = divmod(kind, len(states))
                found[reasons[code], states[state]] += count
        return found


@dataclass(frozen=True, slots=True)
class _Sides:
    """What one handle of the table says of letters: its ledger, and which places it holds."""

    ledger: Ledger | None
    held: Mapping[int, Longs]

    @classmethod
    def of(cls, handle: Table, product: Product, offsets: Mapping[int, Longs]) -> _Sides:
        ledger = read_ledger(handle, product)
        return cls(ledger, rows_at(handle, product, ledger.generation, offsets) if ledger is not None else {})

    def states(self, partition: int, offsets: Longs) -> _Codes:
        """Return the states of letters, as places in `State`."""
        position = -1 if self.ledger is None else self.ledger.next(partition)
        passed = np.where(offsets < position, _OPEN, _AHEAD)
        return np.where(np.isin(offsets, self.held.get(partition, ())), _IN_TABLE, passed).astype(np.int32)

    def state(self, place: Place) -> State:
        """Return the state of a letter."""
        return list(State)[int(self.states(place[0], np.array([place[1]], np.int64))[0])]


def look_at_letters(
    catalog: Catalog, product: Product, portions: Iterable[Sequence[Kept]], wish: Wish, limit: int
) -> Letters:
    """Count a product's letters, and say of each where it is.

    The letters are read before the table, so that one which is being put back meanwhile is never shown as open for
    longer than it is.

    Args:
        catalog: the catalog of the product's domain.
        product: the product.
        portions: its letters.
        wish: which of them count.
        limit: how many single letters are shown.

    Raises:
        NotApplied: if there is no table.
        ProductStopped: if its ledger cannot be read.
        Unavailable: if something does not answer.
    """
    ledger = read_ledger(load_table(catalog, product), product)
    gathered, others = _Gathered(limit), 0
    for portion in portions:
        wanted = [kept for kept in portion if wish.covers(kept.letter)]
        own = [kept for kept in wanted if ledger is None or kept.of(ledger)]
        others += len(wanted) - len(own)
        gathered.take(own)
    offsets = {partition: offsets for partition, (offsets, _) in gathered.places.items()}
    sides = _Sides.of(load_table(catalog, product), product, offsets)
    return Letters(
        product, gathered.counts(sides), others, [(facts, sides.state(facts.place)) for facts in gathered.last()], wish
    )


def state_of(catalog: Catalog, product: Product, place: Place) -> State:
    """Return where a letter is. Raises as `look_at_letters`."""
    return _Sides.of(load_table(catalog, product), product, by_partition([place])).state(place)


def find_letter(ledger: Ledger | None, portions: Iterable[Sequence[Kept]], place: Place) -> Kept | None:
    """Return the newest letter of a place, of the topic that the ledger follows; None: there is none."""
    found = None
    for portion in portions:
        for kept in portion:
            own = ledger is None or kept.of(ledger)
            if own and place_of(kept.letter) == place and (found is None or kept.refused_ms >= found.refused_ms):
                found = kept
    return found
