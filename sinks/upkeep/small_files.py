"""Which small files become one. Pure.

Commits by the second make files by the second, so that they must be put together over and over. A bin is worth its work
only if its rows are several times those of its largest file: each time that a row is written again, the file that holds
it grows by that factor. So a row is written again at most log3 of its last file's rows times while its partition grows:
13 times for a million rows of one-row files, and about 5 where a run finds a minute's files of a second each. Rows are
counted and not bytes, because bytes do not add up: what lies together compresses better.

What is left is few. Of the small files of a growing partition that no bin takes, each behind the first ones has over
half of the rows of all before it together, so their number grows with the logarithm of the rows too. A partition that
gets no rows any more is put together once more, with a lower factor; so are all of a table that rests.

Files stay within their partition and their partition spec: those of an earlier spec, whose rows may belong to several
partitions of today's, are left as they are. A file of an earlier sort order is taken like any other if it is small; it
is not sorted again for the order's sake.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from headrace.schemas.upkeep import Compaction

# How often a bin has the rows of its largest file, at least: while its partition grows, and when it has settled.
GROWTH = Fraction(3)
SETTLED_GROWTH = Fraction(5, 4)
# A partition has settled when it got nothing by so many commits: ten minutes of one a second.
SETTLED_AFTER = 600
# One run reads no more than this: it takes some ten seconds, and what it wrote is lost with it. A file takes some 4 ms,
# so that runs every half minute keep up with 1,800 new files a minute: 300 partitions and a commit every ten seconds.
RUN_BYTES = 512 << 20
RUN_FILES = 2_000


@dataclass(frozen=True, slots=True)
class LiveFile:
    """A data file of a snapshot.

    Attributes:
        path: where it is.
        size_bytes: its size.
        rows: how many rows it has.
        partition: its partition's values, as manifests hold them.
        spec_id: the partition spec that it was written for.
        sequence: the sequence number of the commit that added it.
    """

    path: str
    size_bytes: int
    rows: int
    partition: tuple[Any, ...]
    spec_id: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Files of one partition that become one file, the oldest first."""

    files: tuple[LiveFile, ...]

    @property
    def size_bytes(self) -> int:
        """How many bytes are read."""
        return sum(file.size_bytes for file in self.files)

    @property
    def rows(self) -> int:
        """How many rows are written again."""
        return sum(file.rows for file in self.files)


def chosen(
    files: Iterable[LiveFile],
    aims: Compaction,
    *,
    spec_id: int,
    head: int,
    resting: bool = False,
    most_rows: int | None = None,
) -> tuple[Bin, ...]:
    """Return the bins of one run: those that spare most files a byte come first, as many as one run may read.

    Args:
        files: the data files of one snapshot.
        aims: how large files become, and which are small.
        spec_id: the table's partition spec.
        head: the sequence number of the snapshot.
        resting: nobody commits to the table any more: all its partitions have settled.
        most_rows: how many rows a bin may have; None: any number.
    """
    room = _Room(aims.target_bytes, most_rows)
    partitions: defaultdict[tuple[Any, ...], list[LiveFile]] = defaultdict(list)
    newest: defaultdict[tuple[Any, ...], int] = defaultdict(int)
    for file in files:
        if file.spec_id != spec_id:
            continue
        newest[file.partition] = max(newest[file.partition], file.sequence)
        if file.size_bytes < aims.small_bytes:
            partitions[file.partition].append(file)
    found: list[Bin] = []
    for partition, small in partitions.items():
        settled = resting or head - newest[partition] >= SETTLED_AFTER
        found += _bins(small, room, *_rule(aims, settled=settled))
    return tuple(_of_one_run(sorted(found, key=lambda each: each.size_bytes / len(each.files))))


def worth(files: Sequence[LiveFile], growth: Fraction) -> bool:
    """Tell whether files have together so many times the rows of the largest of them."""
    return len(files) > 1 and sum(file.rows for file in files) >= growth * max(file.rows for file in files)


@dataclass(frozen=True, slots=True)
class _Room:
    """What a bin may hold."""

    size_bytes: int
    rows: int | None

    def for_(self, files: Sequence[LiveFile]) -> tuple[int, bool]:
        """Return how many of the first files fit into a bin, and whether they fill it."""
        size_bytes = rows = 0
        for count, file in enumerate(files):
            size_bytes += file.size_bytes
            rows += file.rows
            too_many = self.rows is not None and rows > self.rows
            if size_bytes > self.size_bytes or too_many or count == RUN_FILES:
                return count, True
        return len(files), False


def _rule(aims: Compaction, *, settled: bool) -> tuple[Fraction, int]:
    """Return by how much a bin's files must grow, and how many they must be, unless they fill it."""
    return (SETTLED_GROWTH, 2) if settled else (GROWTH, aims.min_files)


def _bins(small: Iterable[LiveFile], room: _Room, growth: Fraction, fewest: int) -> Iterator[Bin]:
    left = sorted(small, key=lambda file: (file.rows, file.sequence, file.path))
    while left:
        count, full = room.for_(left)
        # From below, so that the last bin that is worth it is the longest.
        while count > 1 and not ((count >= fewest or full) and worth(left[:count], growth)):
            count, full = count - 1, False
        if count > 1:
            yield Bin(tuple(sorted(left[:count], key=lambda file: (file.sequence, file.path))))
        left = left[max(count, 1) :]


def _of_one_run(bins: Iterable[Bin]) -> Iterator[Bin]:
    size_bytes = files = 0
    for each in bins:
        size_bytes += each.size_bytes
        files += len(each.files)
        # The first bin is done however large it is, or it would never be.
        if files > len(each.files) and (size_bytes > RUN_BYTES or files > RUN_FILES):
            return
        yield each
