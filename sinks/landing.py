"""Landing a batch: the sink's protocol from dead letters to the commit's outcome, step by step.

A landing is an iterator over its steps: it yields a step's name *before* it does the step. The worker drives it; so
does the test suite, which stops it, or the whole process, at any step.

Each failure has one answer:

*A request fails, and nothing certain is known.* The table is asked for the snapshot's id, which was known before.
*It is there.* The batch has landed, whatever the reply said.
*It is absent and the ledger still is at the batch's start.* The same files are committed again, on a new handle.
*The ledger has moved.* Another worker owns these partitions now: the batch is dropped whole.
*An operator holds the product.* The fence is not asked and nothing is committed; after the release the same files are.

After an unknown outcome no file is ever deleted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from pyiceberg.table.refs import MAIN_BRANCH

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import ProductStopped, Unavailable
from headrace.schemas.stamps import holdable
from headrace.sinks.attempts import Attempts
from headrace.sinks.commit import check_fence
from headrace.sinks.draft import Draft
from headrace.sinks.evolution import REFUSED_VERSION
from headrace.sinks.files import write_rows
from headrace.sinks.hold import check_not_held
from headrace.sinks.stops import topic_made_anew
from headrace.streams.history import read_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.batch import Chunk, Letter
    from headrace.sinks.commit import Staged
    from headrace.sinks.files import Shape, Written
    from headrace.streams.ledger import Ledger, Range

# A product whose every second event cannot be read has a fault that dead letters would only hide.
_MANY_ROWS = 100
# A landing that lost this many races in a row waits a little, with jitter, before it goes on.
_REPEATS = 8


class Step(StrEnum):
    """The steps of a landing, in order. RELOAD to OUTCOME repeat until the outcome is certain."""

    LETTERS = "letters"
    FILES = "files"
    RELOAD = "reload"
    STAGE = "stage"
    COMMIT = "commit"
    OUTCOME = "outcome"
    LANDED = "landed"


class Post(Protocol):
    """Where dead letters go."""

    def send(self, letters: Sequence[Letter], ledger: Ledger) -> None:
        """Send letters of the topic and the generation that a ledger names; return when all are acknowledged."""
        ...


@dataclass(frozen=True, slots=True)
class Landed:
    """A batch that is in the table.

    Attributes:
        snapshot_id: the snapshot that holds it.
        ledger: the table's ledger after it.
        rows: rows added.
        letters: messages refused.
        newest_s: the newest row's timestamp, seconds since 1970 UTC; None: no row, or none with a timestamp.
    """

    snapshot_id: int
    ledger: Ledger
    rows: int
    letters: int
    newest_s: float | None


def nothing_expires(_table: Table, /) -> tuple[int, ...]:
    """Every snapshot is kept."""
    return ()


@dataclass(frozen=True, slots=True)
class Desk:
    """What a landing works with.

    Attributes:
        product: the product.
        catalog: its domain's catalog.
        post: where dead letters go.
        shape: how events become rows of the table as it is now (it may have followed another version meanwhile).
        topic_id: asks Kafka for the topic's id.
        branch: the branch that batches go to. A hold keeps `main` as it is, and no other.
        expire: says which snapshots an append's commit removes.
    """

    product: Product
    catalog: Catalog
    post: Post
    shape: Callable[[Table], Shape]
    topic_id: Callable[[], str]
    branch: str = MAIN_BRANCH
    expire: Callable[[Table], tuple[int, ...]] = nothing_expires

    @property
    def on_main(self) -> bool:
        """Whether batches go to the branch that everybody reads."""
        return self.branch == MAIN_BRANCH


@dataclass(slots=True)
class Landing:
    """Lands one batch.

    Args:
        desk: what it works with.
        base: the ledger that the worker started from: identity and first positions of the topic.
        ranges: what the batch covers.
        chunks: the batch's decoded frames.

    Iterating raises:
        Stale: the batch is not this worker's any more; nothing of it landed.
        ProductStopped: only an operator can decide.
        Unavailable: something does not answer. Iterating *again* goes on where it was, with the same files.
        Held: likewise, an operator holds the product.
    """

    desk: Desk
    base: Ledger
    ranges: Mapping[int, Range]
    chunks: Sequence[Chunk]
    landed: Landed | None = None
    _posted: bool = False
    _written: Written | None = None
    _after: dict[int, Ledger] = field(default_factory=dict)
    _attempts: Attempts = field(init=False)

    def __post_init__(self) -> None:
        self._attempts = Attempts(self.desk.catalog, self.desk.product)

    def __iter__(self) -> Iterator[Step]:
        """Yield each step before doing it."""
        self._refuse_flood()
        if self.letters and not self._posted:
            yield Step.LETTERS
            self.desk.post.send(self.letters, self.base)
            self._posted = True
        for _ in range(_REPEATS):
            yield Step.RELOAD
            table = load_table(self.desk.catalog, self.desk.product)
            if self._settle(table):
                yield Step.LANDED
                return
            if self.desk.on_main:
                check_not_held(table, self.desk.product)
            ledger = self._fenced(table)
            self._attempts.raise_doubt()
            if self._written is None or not self._written.fits(table):
                yield Step.FILES
                self._write(table)
                # Writing takes long enough for others to land: the fence is checked on a new handle.
                continue
            yield Step.STAGE
            staged = self._stage(table, ledger)
            yield Step.COMMIT
            self._attempts.send(table, staged)
            yield Step.OUTCOME
        raise Unavailable(
            "others commit to the table all the time", where=f"table {self.desk.product.name}", hint="it is tried again"
        )

    @property
    def letters(self) -> list[Letter]:
        """The batch's refused messages."""
        return [letter for chunk in self.chunks for letter in chunk.letters]

    @property
    def rows(self) -> int:
        """Rows that the batch adds."""
        return sum(len(chunk) for chunk in self.chunks)

    def _refuse_flood(self) -> None:
        # What the contract sends to the dead letters is no fault that they would hide.
        unread = [letter for letter in self.letters if letter.reason != REFUSED_VERSION]
        refused = len(unread)
        if refused + self.rows >= _MANY_ROWS and refused > self.rows:
            raise ProductStopped(
                f"{refused:,} of {refused + self.rows:,} messages cannot be read ({unread[0].reason})",
                where=f"topic {self.desk.product.topic}",
                hint="see which schema their producer uses; nothing was committed, and the sink starts from here again",
            )

    def _settle(self, table: Table) -> bool:
        """Tell whether one of the commits sent so far is in the table's history."""
        snapshot_id = self._attempts.landed(table)
        if snapshot_id is None:
            return False
        self.landed = Landed(snapshot_id, self._after[snapshot_id], self.rows, len(self.letters), self._newest_s())
        return True

    def _newest_s(self) -> float | None:
        stamps_ms = [chunk.timestamps_ms[holdable(chunk.timestamps_ms)] for chunk in self.chunks]
        return max((float(stamps.max()) / 1_000 for stamps in stamps_ms if len(stamps)), default=None)

    def _fenced(self, table: Table) -> Ledger:
        # A table without a ledger holds nothing, whatever the worker started from: it may have been made anew since.
        ledger = read_ledger(table, self.desk.product, self.desk.branch) or self.base.at_origin()
        topic_id = self.desk.topic_id()
        if topic_id != ledger.topic_id:
            raise topic_made_anew(self.desk.product, ledger.topic_id, topic_id)
        check_fence(ledger, self.base, self.ranges, where=str(self.desk.product.name))
        return ledger

    def _write(self, table: Table) -> None:
        rows = self.desk.shape(table).rows(table, self.chunks, self.base.generation)
        self._written = write_rows(table, rows, self.desk.product)

    def _stage(self, table: Table, ledger: Ledger) -> Staged:
        files = self._written.files if self._written else ()
        after = ledger.advanced(self.ranges)
        draft = Draft(after, files, branch=self.desk.branch, expired=self.desk.expire(table))
        staged = self._attempts.stage(table, draft)
        self._after[staged.snapshot_id] = after
        return staged
