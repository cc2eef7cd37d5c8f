"""A product's dead letters, counted by reason, and where each of them is: open, in the table, or still to be read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from headrace.schemas.catalog import load_table
from headrace.sinks.redriving import by_partition, place_of, places_in
from headrace.streams.history import read_ledger
from headrace.streams.rows import rows_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.letters import Kept
    from headrace.sinks.redriving import Place, Wish
    from headrace.streams.ledger import Ledger

__all__ = ["Facts", "Letters", "State", "find_letter", "look_at_letters", "state_of"]


class State(StrEnum):
    """Where a letter is."""

    OPEN = "open"
    IN_TABLE = "in the table"
    AHEAD = "not yet passed by the sink"


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
    """

    product: Product
    counts: Mapping[tuple[str, State], int]
    others: int
    newest: Sequence[tuple[Facts, State]]

    def total(self, state: State) -> int:
        """Return how many letters are in a state."""
        return sum(count for (_, each), count in self.counts.items() if each is state)


@dataclass(slots=True)
class _Gathered:
    """Letters as they are read: the reason of each place, and the facts of the newest. Some 100 bytes a letter."""

    limit: int
    reasons: dict[Place, str] = field(default_factory=dict)
    newest: dict[Place, Facts] = field(default_factory=dict)

    def take(self, kept: Kept) -> None:
        place = place_of(kept.letter)
        # One text for all letters of a reason.
        self.reasons[place] = _REASONS.setdefault(kept.letter.reason, kept.letter.reason)
        self.newest[place] = Facts.of(kept)
        if len(self.newest) > 2 * self.limit + 1_000:
            self.newest = {each.place: each for each in self.last()}

    def last(self) -> list[Facts]:
        """Return the newest letters, the newest first."""
        ordered = sorted(self.newest.values(), key=lambda each: (each.refused_ms, each.place), reverse=True)
        return ordered[: self.limit]


_REASONS: dict[str, str] = {}


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
        for kept in portion:
            if not wish.covers(kept.letter):
                continue
            if ledger is not None and not kept.of(ledger):
                others += 1
            else:
                gathered.take(kept)
    sides = _sides(load_table(catalog, product), product, gathered.reasons)
    counts = Counter((reason, _state(place, *sides)) for place, reason in gathered.reasons.items())
    return Letters(product, counts, others, [(facts, _state(facts.place, *sides)) for facts in gathered.last()])


def state_of(catalog: Catalog, product: Product, place: Place) -> State:
    """Return where a letter is. Raises as `look_at_letters`."""
    handle = load_table(catalog, product)
    return _state(place, *_sides(handle, product, [place]))


def _sides(handle: Table, product: Product, places: Iterable[Place]) -> tuple[Ledger | None, frozenset[Place]]:
    """Return the ledger of a handle, and which of some places its table holds."""
    ledger = read_ledger(handle, product)
    if ledger is None:
        return None, frozenset()
    return ledger, places_in(rows_at(handle, product, ledger.generation, by_partition(places)))


def _state(place: Place, ledger: Ledger | None, held: frozenset[Place]) -> State:
    if place in held:
        return State.IN_TABLE
    passed = ledger is not None and place[1] < ledger.next(place[0])
    return State.OPEN if passed else State.AHEAD


def find_letter(ledger: Ledger | None, portions: Iterable[Sequence[Kept]], place: Place) -> Kept | None:
    """Return the newest letter of a place, of the topic that the ledger follows; None: there is none."""
    found = None
    for portion in portions:
        for kept in portion:
            own = ledger is None or kept.of(ledger)
            if own and place_of(kept.letter) == place and (found is None or kept.refused_ms >= found.refused_ms):
                found = kept
    return found
