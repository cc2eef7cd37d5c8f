"""Putting dead letters back: what can be read by now becomes the rows that it should have been, each once.

Letters are taken a portion at a time. On one handle of the table only those become rows that lie before the ledger's
positions of that handle and that a scan of its snapshot does not hold; the commit holds only while that snapshot is the
branch's head. No position moves. So a redrive may be repeated, broken off anywhere, and run beside sinks, other
redrives and rollbacks: whoever moves the table in between, the next attempt looks again.

A row has its original's partition, offset, timestamp, generation and schema id, and the masks of today. Letters of a
topic that the table followed before it was made anew become rows of that generation.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol

from headrace.schemas.catalog import load_table, on_handle
from headrace.schemas.errors import Held, ProductStopped, Unavailable
from headrace.sinks.attempts import Answer, Attempts
from headrace.sinks.dead_letters.holdings import Holdings
from headrace.sinks.dead_letters.redriving import (
    Seen,
    Sorted,
    Tally,
    Wish,
    by_partition,
    by_topic,
    frames_from,
    only,
    place_of,
    sorted_by,
)
from headrace.sinks.draft import Draft
from headrace.sinks.evolution import REFUSED_VERSION
from headrace.sinks.files import write_rows
from headrace.sinks.hold import hold_of
from headrace.sinks.landing import Step
from headrace.sinks.past_topics import as_followed
from headrace.streams.history import read_ledger
from headrace.streams.ledger import REDRIVE_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.batch import Chunk, Letter
    from headrace.sinks.dead_letters.message import Kept
    from headrace.sinks.dead_letters.redriving import Place
    from headrace.sinks.files import Shape, Written
    from headrace.streams.frames import Frame, Longs
    from headrace.streams.ledger import Ledger

# Each conflict means that somebody else made progress. A sink may commit several times a second.
_REPEATS = 50


EVERY_LETTER = Wish()


class Decodes(Protocol):
    """What makes rows of frames, as `headrace.sinks.decoding.Decoding` does."""

    def chunk(self, frame: Frame, /) -> Chunk:
        """Decode a frame."""
        ...

    def shape(self, table: Table, /) -> Shape:
        """Return how events become rows of the table as it is."""
        ...


def unobserved(_step: Step, /) -> None:
    """Nobody watches the steps."""


@dataclass(frozen=True, slots=True)
class Redrive:
    """Puts a product's dead letters back.

    Attributes:
        catalog: the catalog of the product's domain.
        product: the product.
        decoding: decodes events and makes the table follow their versions.
        wish: which letters are asked for.
        observe: is told each step before it is done.
    """

    catalog: Catalog
    product: Product
    decoding: Decodes
    wish: Wish = EVERY_LETTER
    observe: Callable[[Step], None] = unobserved

    def run(self, portions: Iterable[Sequence[Kept]], tally: Tally | None = None) -> Tally:
        """Put the letters of all portions back; return what became of them.

        Args:
            portions: the letters, repeats included.
            tally: counts while it goes on.

        Raises:
            Held: an operator holds the product. Like all that is raised here, it comes between two portions' commits:
                what was put back before stays, and the redrive may simply be run again.
            NotApplied: there is no table.
            ProductStopped: the table has no room for a version, or its ledger cannot be read.
            Unavailable: catalog, registry or storage does not answer, or others commit all the time.
        """
        tally, seen = tally or Tally(), Seen()
        check_redrivable(load_table(self.catalog, self.product), self.product)
        for portion in portions:
            for letters in by_topic(seen.new(kept for kept in portion if self.wish.covers(kept.letter))):
                for step in _Portion(self, letters, tally):
                    self.observe(step)
        return tally


def check_redrivable(table: Table, product: Product) -> None:
    """Check that nobody holds the product.

    Raises:
        Held: with the reason, and what to do.
    """
    found = hold_of(table)
    if found is not None:
        next_step = f"headrace release {product.name}, then headrace dlq redrive {product.name}"
        raise Held(str(found), where=f"table {product.name}", hint=next_step)


@dataclass(slots=True)
class _Portion:
    """Puts letters of one topic back: an iterator over the steps, each of which is yielded before it is done."""

    redrive: Redrive
    letters: Sequence[Kept]
    tally: Tally
    _attempts: Attempts = field(init=False)
    # How the last handle saw the letters: what its ledger says of them, and which it holds.
    _sorted: Sorted = field(init=False)
    _held: frozenset[Place] = frozenset()
    _holdings: Holdings = field(init=False)
    # What has been decoded so far: rows, and by place the reason why there is none; None: there is.
    _chunks: list[Chunk] = field(default_factory=list)
    _reasons: dict[Place, str | None] = field(default_factory=dict)
    # The generation and the rows that were written last, and how many each attempt holds, by its snapshot's id.
    _written: tuple[int, frozenset[Place], Written] | None = None
    _staged: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._attempts = Attempts(self.redrive.catalog, self.redrive.product)
        self._holdings = Holdings(self.redrive.product)

    def __iter__(self) -> Iterator[Step]:
        for _ in range(_REPEATS):
            yield Step.RELOAD
            table = load_table(self.redrive.catalog, self.redrive.product)
            if (landed := self._attempts.landed(table)) is not None:
                self._settle(self._staged[landed])
                yield Step.LANDED
                return
            check_redrivable(table, self.redrive.product)
            self._attempts.raise_doubt()
            ledger = read_ledger(table, self.redrive.product)
            followed = self._followed(table, ledger)
            self._look(table, followed)
            if self._decode():
                # Decoding may have made the table follow a version.
                continue
            rows = frozenset(place for place in self._open() if self._reasons[place] is None)
            if ledger is None or followed is None or not rows:
                self._settle(0)
                return
            if self._written is None or not self._serves(self._written, table, followed, rows):
                yield Step.FILES
                self._write(table, followed, rows)
                # Writing takes long enough for others to land: the table is looked at again on a new handle.
                continue
            yield Step.STAGE
            staged = self._attempts.stage(table, self._draft(ledger, followed, rows, self._written[-1]))
            self._staged[staged.snapshot_id] = len(rows)
            yield Step.COMMIT
            answer = self._attempts.send(table, staged)
            yield Step.OUTCOME
            if answer is Answer.LANDED:
                self._settle(len(rows))
                yield Step.LANDED
                return
        raise Unavailable(
            "others commit to the table all the time",
            where=f"table {self.redrive.product.name}",
            hint="what was put back stays; run it again",
        )

    def _followed(self, table: Table, ledger: Ledger | None) -> Ledger | None:
        """Return the ledger of the letters' topic: the table's own, or that of an earlier topic, which has ended."""
        if ledger is None:
            return None
        partitions = {kept.letter.partition for kept in self.letters}
        return as_followed(table.metadata, ledger, self.letters[0].topic_id, partitions) or ledger

    def _look(self, table: Table, ledger: Ledger | None) -> None:
        """See the letters as one handle does."""
        self._sorted, self._held = sorted_by(ledger, self.letters), frozenset()
        if ledger is not None:
            asked = frozenset(place_of(each.letter) for each in (*self._sorted.passed, *self._sorted.untimed))
            with on_handle(self.redrive.catalog, self.redrive.product, table):
                self._held = self._holdings.among(asked, table, ledger)

    def _open(self) -> dict[Place, Letter]:
        """Return the letters that the sink has passed and the table does not hold."""
        passed = {place_of(each.letter): each.letter for each in self._sorted.passed}
        return {place: letter for place, letter in passed.items() if place not in self._held}

    def _decode(self) -> bool:
        """Decode the open letters that were not decoded yet; tell whether there were any."""
        left = [letter for place, letter in self._open().items() if place not in self._reasons]
        for frame in frames_from(left):
            try:
                chunk = self.redrive.decoding.chunk(frame)
            except ProductStopped as error:
                # The contract lets events of such a version wait; these do not wait any more, they are letters.
                self.tally.hints[REFUSED_VERSION] = error.hint or error.what
                self._reasons |= dict.fromkeys(_places(frame.partition, frame.offsets), REFUSED_VERSION)
                continue
            self._chunks.append(chunk)
            self._reasons |= dict.fromkeys(_places(chunk.partition, chunk.offsets))
            self._reasons |= {place_of(letter): letter.reason for letter in chunk.letters}
        return bool(left)

    def _write(self, table: Table, ledger: Ledger, rows: frozenset[Place]) -> None:
        shape, product = self.redrive.decoding.shape(table), self.redrive.product
        made = shape.rows(table, only(self._chunks, rows), ledger.generation)
        self._written = ledger.generation, rows, write_rows(table, made, product)

    @staticmethod
    def _serves(
        written: tuple[int, frozenset[Place], Written], table: Table, ledger: Ledger, rows: frozenset[Place]
    ) -> bool:
        return written[:2] == (ledger.generation, rows) and written[-1].fits(table)

    def _draft(self, ledger: Ledger, followed: Ledger, rows: frozenset[Place], written: Written) -> Draft:
        last = {partition: int(offsets[-1]) for partition, offsets in by_partition(rows).items()}
        # Rows of an earlier generation are none of those whose last ones the ledger tells.
        after = ledger.redriven(last) if followed is ledger else ledger.adding_nothing()
        asked = {name: value for name, value in asdict(self.redrive.wish).items() if value is not None}
        note = json.dumps({"rows": len(rows), **asked}, separators=(",", ":"))
        return Draft(after, written.files, notes={REDRIVE_KEY: note})

    def _settle(self, rows: int) -> None:
        tally, found = self.tally, self._sorted
        tally.put_back += rows
        passed = {place_of(each.letter) for each in found.passed}
        tally.held += len(self._held & passed)
        tally.ahead += found.ahead
        tally.untimed += len({place_of(each.letter) for each in found.untimed} - self._held - passed)
        tally.others += found.others
        reasons = (self._reasons[place] for place in self._open())
        tally.refused.update(reason for reason in reasons if reason is not None)


def _places(partition: int, offsets: Longs) -> Iterator[Place]:
    return ((partition, offset) for offset in offsets.tolist())
