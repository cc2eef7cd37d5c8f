"""A product's dead letters, counted by reason, and where each of them is: open, in the table, or still to be read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from headrace.schemas.catalog import load_table
from headrace.sinks.dead_letters.redriving import by_partition, place_of
from headrace.sinks.past_topics import as_followed
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

__all__ = ["Facts", "Followed", "Letters", "State", "find_letter", "look_at_letters", "state_of"]


class State(StrEnum):
    """Where a letter is."""

    OPEN = "open"
    IN_TABLE = "in the table"
    AHEAD = "not yet passed by the sink"


_OPEN, _IN_TABLE, _AHEAD = range(len(State))
_Codes: TypeAlias = "np.ndarray[Any, np.dtype[np.int32]]"
# The id of the topic that a letter came from, and its partition there.
_Origin: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is shown of a letter."""

    partition: int
    offset: int
    generation: int | None
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
            kept.generation,
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
        others: messages that came from a topic of the name that the table never followed, as far as anybody can tell.
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
class Followed:
    """Which topics a table follows or has followed, and how far it is with each: as one handle tells it."""

    table: Table
    ledger: Ledger | None
    _known: dict[str, Ledger | None] = field(default_factory=dict)

    @classmethod
    def by(cls, catalog: Catalog, product: Product) -> Followed:
        """Return what the product's table says now.

        Raises:
            NotApplied: if there is no table.
            ProductStopped: if its ledger cannot be read.
            Unavailable: if something does not answer.
        """
        table = load_table(catalog, product)
        return cls(table, read_ledger(table, product))

    def owns(self, kept: Kept) -> bool:
        """Tell whether a letter came from a topic that the table follows or has followed, in its generation."""
        topic = self.topic(kept.topic_id)
        return self.ledger is None or (topic is not None and kept.of(topic))

    def topic(self, topic_id: str) -> Ledger | None:
        """Return how far the table is with a topic; None: it has never followed it. Positions of earlier ones say 0."""
        if self.ledger is None:
            return None
        if topic_id not in self._known:
            self._known[topic_id] = as_followed(self.table.metadata, self.ledger, topic_id, ())
        return self._known[topic_id]

    def ended(self, topic_id: str) -> bool:
        """Tell whether it is a topic that the table followed before."""
        return self.ledger is not None and topic_id != self.ledger.topic_id


@dataclass(slots=True)
class _Gathered:
    """Letters as they are read: the reason of each, in 12 bytes, and the facts of the newest."""

    limit: int
    reasons: dict[str, int] = field(default_factory=dict)
    places: dict[_Origin, tuple[Longs, _Codes]] = field(default_factory=dict)
    newest: dict[tuple[str, Place], Facts] = field(default_factory=dict)

    def take(self, portion: Iterable[Kept]) -> None:
        """Take letters; of those of one place the last one's reason counts."""
        found: dict[_Origin, dict[int, int]] = {}
        for kept in portion:
            partition, offset = place = place_of(kept.letter)
            code = self.reasons.setdefault(kept.letter.reason, len(self.reasons))
            found.setdefault((kept.topic_id, partition), {})[offset] = code
            self.newest[kept.topic_id, place] = Facts.of(kept)
            if len(self.newest) > 2 * self.limit + 1_000:
                self.newest = {(topic_id, each.place): each for topic_id, each in self.last()}
        for origin, codes in found.items():
            self._add(origin, np.array(list(codes), np.int64), np.array(list(codes.values()), np.int32))

    def _add(self, origin: _Origin, offsets: Longs, codes: _Codes) -> None:
        if origin in self.places:
            before, known = self.places[origin]
            kept = ~np.isin(before, offsets)
            offsets, codes = np.concatenate([before[kept], offsets]), np.concatenate([known[kept], codes])
        self.places[origin] = offsets, codes

    def last(self) -> list[tuple[str, Facts]]:
        """Return the newest letters with their topics' ids, the newest first."""
        found = [(topic_id, facts) for (topic_id, _), facts in self.newest.items()]
        return sorted(found, key=lambda each: (each[1].refused_ms, each[1].place), reverse=True)[: self.limit]

    def counts(self, sides: _Sides) -> Counter[tuple[str, State]]:
        """Return how many letters there are, by reason and state."""
        reasons, states, found = list(self.reasons), list(State), Counter[tuple[str, State]]()
        for origin, (offsets, codes) in self.places.items():
            kinds, counts = np.unique(codes * len(states) + sides.states(origin, offsets), return_counts=True)
            for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
                code, state = divmod(kind, len(states))
                found[reasons[code], states[state]] += count
        return found


@dataclass(frozen=True, slots=True)
class _Sides:
    """What one handle of the table says of letters: how far it is with their topics, and which of them it holds."""

    followed: Followed
    held: Mapping[_Origin, Longs]

    @classmethod
    def of(cls, followed: Followed, product: Product, offsets: Mapping[_Origin, Longs]) -> _Sides:
        held: dict[_Origin, Longs] = {}
        for topic_id in {topic_id for topic_id, _ in offsets}:
            asked = {partition: some for (of, partition), some in offsets.items() if of == topic_id}
            if (topic := followed.topic(topic_id)) is not None:
                there = rows_at(followed.table, product, topic.generation, asked)
                held |= {(topic_id, partition): some for partition, some in there.items()}
        return cls(followed, held)

    def states(self, origin: _Origin, offsets: Longs) -> _Codes:
        """Return the states of letters, as places in `State`."""
        topic_id, partition = origin
        topic = self.followed.topic(topic_id)
        if topic is None:
            passed = np.full(len(offsets), _AHEAD)
        elif self.followed.ended(topic_id):
            # Nobody reads that topic again.
            passed = np.full(len(offsets), _OPEN)
        else:
            passed = np.where(offsets < topic.next(partition), _OPEN, _AHEAD)
        return np.where(np.isin(offsets, self.held.get(origin, ())), _IN_TABLE, passed).astype(np.int32)

    def state(self, topic_id: str, place: Place) -> State:
        """Return the state of a letter."""
        return list(State)[int(self.states((topic_id, place[0]), np.array([place[1]], np.int64))[0])]


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
    followed = Followed.by(catalog, product)
    gathered, others = _Gathered(limit), 0
    for portion in portions:
        wanted = [kept for kept in portion if wish.covers(kept.letter)]
        own = [kept for kept in wanted if followed.owns(kept)]
        others += len(wanted) - len(own)
        gathered.take(own)
    offsets = {origin: offsets for origin, (offsets, _) in gathered.places.items()}
    sides = _Sides.of(Followed.by(catalog, product), product, offsets)
    newest = [(facts, sides.state(topic_id, facts.place)) for topic_id, facts in gathered.last()]
    return Letters(product, gathered.counts(sides), others, newest, wish)


def state_of(catalog: Catalog, product: Product, kept: Kept) -> State:
    """Return where a letter is. Raises as `look_at_letters`."""
    place = place_of(kept.letter)
    offsets = {(kept.topic_id, partition): some for partition, some in by_partition([place]).items()}
    return _Sides.of(Followed.by(catalog, product), product, offsets).state(kept.topic_id, place)


def find_letter(followed: Followed, portions: Iterable[Sequence[Kept]], place: Place) -> Kept | None:
    """Return the newest letter of a place, of the topics that a table follows or has followed; None: there is none."""
    found = None
    for portion in portions:
        for kept in portion:
            newer = found is None or kept.refused_ms >= found.refused_ms
            if newer and place_of(kept.letter) == place and followed.owns(kept):
                found = kept
    return found
