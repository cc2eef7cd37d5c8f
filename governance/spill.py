"""A table's rows, sorted into files on the local disk by generation, partition and range of offsets.

A table's files follow its layout (days, buckets, a sort order), not the order of offsets. One pass over the table puts
each row's mark where its window is, and each window is then read once. Asking the engine for each window instead would
read most files once for each partition of the topic, and from a remote storage fetch them as often; it would also
believe the bounds that a writer has put into the table's metadata. 16 bytes a row lie on the disk, few in memory.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from headrace.governance.marks import Marks
from headrace.schemas.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from headrace.governance.marks import Longs

__all__ = ["Spill", "disk_errors"]

# A file holds the rows of 2**18 = 262,144 offsets: 4 MiB, where each offset has one row.
_SLOT_BITS = 18
# Rows in the order of partitions and offsets make few runs; anything else is sorted first, which costs more.
_MOST_RUNS = 4_096


class Spill:
    """Rows on the disk. Not for several threads.

    Args:
        folder: a folder to be made; the caller removes it.

    Raises:
        Unavailable: if it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        with disk_errors():
            folder.mkdir()
        self._folder = folder
        # By generation and partition: how many rows lie in the file of each range.
        self._rows: defaultdict[tuple[int, int], Counter[int]] = defaultdict(Counter)
        self._last: dict[tuple[int, int], int] = {}

    @property
    def places(self) -> set[tuple[int, int]]:
        """Generation and partition of which there are rows."""
        return set(self._last)

    @property
    def last_offsets(self) -> Mapping[tuple[int, int], int]:
        """The highest offset of a row by generation and partition."""
        return self._last

    def add(self, generations: Longs, partitions: Longs, rows: Marks) -> None:
        """Put rows away.

        Raises:
            Unavailable: if the disk does not take them.
        """
        keys = np.stack([generations, partitions, rows.offsets >> _SLOT_BITS])
        marks = np.stack([rows.offsets, rows.timestamps_ms], axis=1)
        edges = _edges(keys)
        if len(edges) > _MOST_RUNS:
            order = np.lexsort(keys[::-1])
            keys, marks = keys[:, order], marks[order]
            edges = _edges(keys)
        for first, end in pairwise(edges):
            generation, partition, slot = keys[:, first].tolist()
            self._append((generation, partition), slot, marks[first:end])

    def read(self, generation: int, partition: int) -> Iterator[Marks]:
        """Yield the rows of a partition by offset and timestamp, one range of offsets at a time.

        Raises:
            Unavailable: if the disk does not give them back.
        """
        place = (generation, partition)
        for slot, count in sorted(self._rows.get(place, Counter()).items()):
            with disk_errors():
                marks = np.fromfile(self._file(place, slot), np.int64).reshape(-1, 2)
            if len(marks) != count:
                raise Unavailable("rows that were put away are gone", where=str(self._folder), hint="run it again")
            yield Marks(marks[:, 0], marks[:, 1]).ordered()

    def _append(self, place: tuple[int, int], slot: int, marks: Longs) -> None:
        with disk_errors(), self._file(place, slot).open("ab") as file:
            file.write(np.ascontiguousarray(marks).data)
        self._rows[place][slot] += len(marks)
        last = int(marks[:, 0].max())
        self._last[place] = max(self._last.get(place, last), last)

    def _file(self, place: tuple[int, int], slot: int) -> Path:
        return self._folder / f"{place[0]}_{place[1]}_{slot}"


def _edges(keys: Longs) -> list[int]:
    """Return where a run of equal keys begins, and the end of the last one."""
    count = keys.shape[1]
    if not count:
        return []
    changes = np.flatnonzero((keys[:, 1:] != keys[:, :-1]).any(axis=0)) + 1
    return [0, *changes.tolist(), count]


@contextmanager
def disk_errors() -> Iterator[None]:
    """Map what the folder for temporary files raises.

    Raises:
        Unavailable: if it cannot be written or read.
    """
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the folder for temporary files fails: {error.strerror or type(error).__name__}",
            where=tempfile.gettempdir(),
            hint="free space there (16 bytes for each row of the table), or name another folder in TMPDIR",
        ) from None
