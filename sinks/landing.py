"""Landing a batch: the sink's protocol from dead letters to the commit's outcome, step by step.

A landing is an iterator over its steps: it yields a step's name *before* it does the step. The worker drives it; so
does the test suite, which stops it, or the whole process, at any step.

Each failure has one answer:

*A request fails, and nothing certain is known.* The table is asked for the snapshot's id, which was known before.
Only a reply that shows the table with this snapshot is believed without asking.
*It is there.* The batch has landed, whatever the reply said.
*It is absent and the ledger still is at the batch's start.* The same files are committed again, on a new handle.
*The ledger has moved.* Another worker owns these partitions now: the batch is dropped whole.
*An operator holds the product.* The fence is not asked and nothing is committed; after the release the same files are.

After an unknown outcome no file is ever deleted.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from pyiceberg.table.refs import MAIN_BRANCH

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import ProductStopped, Unavailable
from headrace.schemas.stamps import holdable
from headrace.sinks.attempts import Answer, Attempts
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
# A landing waits after each race that it loses. Who loses this many in a row, waits included, has too many rivals.
_REPEATS = 16


class Step(StrEnum):
    """The steps of a landing, in order. RELOAD to OUTCOME repeat until the outcome is certain."""

    LETTERS = "letters"
    REGISTER = "register"
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
        refused: messages refused, by reason.
        newest: the newest row's timestamp by partition, seconds since 1970 UTC; partitions without any are left out.
        size_bytes: the size of its data files.
        conflicts: how many races for the commit it lost before.
        read_bytes: the size of its messages' keys and values.
        steps_s: how long each step took in all, in seconds. The wait after a lost race counts as its outcome's; waits
            for what does not answer are left out.
        files: how many data files.
        at_s: when it was known that it had landed, seconds since 1970 UTC.
    """

    snapshot_id: int
    ledger: Ledger
    rows: int
    refused: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    newest: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    size_bytes: int = 0
    conflicts: int = 0
    read_bytes: int = 0
    steps_s: Mapping[Step, float] = field(default_factory=lambda: MappingProxyType({}))
    files: int = 0
    at_s: float = field(default_factory=time.time)

    @property
    def letters(self) -> int:
        """Messages refused."""
        return sum(self.refused.values())

    @property
    def newest_s(self) -> float | None:
        """The newest row's timestamp, seconds since 1970 UTC; None: no row, or none with a timestamp."""
        return max(self.newest.values(), default=None)


class Unregistered:
    """Dead letters are entered nowhere: their topic is all that tells of them."""

    def send(self, letters: Sequence[Letter], ledger: Ledger) -> None:
        """See :meth:`Post.send`."""


def no_rest(_lost: int, /) -> None:
    """Try again at once."""


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
        rest: waits after a lost race; it is told how many were lost in a row.
        register: where dead letters are entered once ``post`` has them.
    """

    product: Product
    catalog: Catalog
    post: Post
    shape: Callable[[Table], Shape]
    topic_id: Callable[[], str]
    branch: str = MAIN_BRANCH
    expire: Callable[[Table], tuple[int, ...]] = nothing_expires
    rest: Callable[[int], None] = no_rest
    register: Post = field(default_factory=Unregistered)

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
    _registered: bool = False
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
        if self.letters and not self._registered:
            yield Step.REGISTER
            self.desk.register.send(self.letters, self.base)
            self._registered = True
        for _ in range(_REPEATS):
            yield Step.RELOAD
            table = load_table(self.desk.catalog, self.desk.product)
            if (landed := self._attempts.landed(table)) is not None:
                self._settle(landed)
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
            answer = self._attempts.send(table, staged)
            yield Step.OUTCOME
            if answer is Answer.LANDED:
                self._settle(staged.snapshot_id)
                yield Step.LANDED
                return
            if answer is Answer.REFUSED:
                self.desk.rest(self._attempts.refused)
        raise Unavailable(
            "others commit to the table all the time",
            where=f"table {self.desk.product.name}",
            hint="it is tried again with the same files; if it stays so, run fewer workers or commit less often",
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

    def _settle(self, snapshot_id: int) -> None:
        files = self._written.files if self._written else ()
        self.landed = Landed(
            snapshot_id,
            self._after[snapshot_id],
            self.rows,
            Counter(letter.reason for letter in self.letters),
            self._newest(),
            sum(file.file_size_in_bytes for file in files),
            self._attempts.refused,
            files=len(files),
        )

    def _newest(self) -> Mapping[int, float]:
        newest: dict[int, float] = {}
        for chunk in self.chunks:
            stamps_ms = chunk.timestamps_ms[holdable(chunk.timestamps_ms)]
            if len(stamps_ms):
                newest_s = float(stamps_ms.max()) / 1_000
                newest[chunk.partition] = max(newest_s, newest.get(chunk.partition, newest_s))
        return newest

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
        expired = self.desk.expire(table) if self.desk.on_main else ()
        staged = self._attempts.stage(table, Draft(after, files, branch=self.desk.branch, expired=expired))
        self._after[staged.snapshot_id] = after
        return staged
