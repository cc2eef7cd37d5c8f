"""Which small files become one: how many are left, and how often a row is written again, over days of commits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.schemas.upkeep import Compaction
from headrace.sinks.upkeep.small_files import (
    GROWTH,
    RUN_BYTES,
    RUN_FILES,
    SETTLED_AFTER,
    SETTLED_GROWTH,
    Bin,
    LiveFile,
    chosen,
    worth,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 1 << 20
AIMS = Compaction(target_bytes=128 * MIB, small_bytes=32 * MIB, min_files=8)
DAY_S = 86_400
# What a small Parquet file takes beside its rows.
FOOTER_BYTES = 3_000


def live(rows: int, *, size: int | None = None, partition: int = 0, sequence: int = 1, spec: int = 0) -> LiveFile:
    return LiveFile(
        f"{partition}-{sequence}-{rows}-{size}", rows if size is None else size, rows, (partition,), spec, sequence
    )


def bins(
    files: Sequence[LiveFile], *, head: int = 1, resting: bool = False, most_rows: int | None = None
) -> list[list[int]]:
    found = chosen(files, AIMS, spec_id=0, head=head, resting=resting, most_rows=most_rows)
    return [[file.rows for file in each.files] for each in found]


def numbered(*rows: int, size: int | None = None) -> list[LiveFile]:
    return [live(each, sequence=number, size=size) for number, each in enumerate(rows, 1)]


def test_files_of_like_size_become_one_the_oldest_first() -> None:
    assert bins(numbered(3, 1, 2, 1, 3, 1, 1, 1)) == [[3, 1, 2, 1, 3, 1, 1, 1]]


def test_too_few_files_are_left() -> None:
    assert bins(numbered(*[1] * 7)) == []
    assert bins([]) == []


def test_a_file_that_would_hardly_grow_is_left_out() -> None:
    assert bins(numbered(*[1] * 8, 100)) == [[1] * 8]
    assert bins(numbered(*[1] * 8, 4)) == [[*[1] * 8, 4]]


def test_fewer_files_will_do_where_they_fill_a_bin() -> None:
    assert bins(numbered(*[1000] * 5, size=30 * MIB)) == [[1000] * 4]
    # Two that fill it would only be copied.
    assert bins(numbered(*[1000] * 5), most_rows=2_500) == []
    assert bins(numbered(*[1000] * 5), most_rows=3_500) == [[1000] * 3]


def test_large_files_are_never_read_again() -> None:
    assert bins(numbered(*[10**6] * 50, size=32 * MIB)) == []


def test_files_stay_in_their_partition_and_spec() -> None:
    files = [live(1, partition=partition, sequence=number) for number in range(8) for partition in range(3)]
    assert bins(files) == [[1] * 8] * 3
    assert bins([live(1, partition=number) for number in range(100)]) == []
    assert bins([live(1, spec=1, sequence=number) for number in range(100)]) == []


def test_a_partition_that_gets_no_rows_any_more_is_put_together_once_more() -> None:
    files = numbered(50, 30, 10, 5)
    assert bins(files, head=4 + SETTLED_AFTER - 1) == []
    assert bins(files, head=4 + SETTLED_AFTER) == [[50, 30, 10, 5]]
    # One late row is not worth writing a million again.
    assert bins(numbered(10**6, 1), head=10**4) == []
    # A large file counts for it as well: the partition still grows.
    assert bins([*files, live(10**7, size=40 * MIB, sequence=500)], head=4 + SETTLED_AFTER) == []


def test_in_a_table_that_rests_every_partition_is_put_together_once_more() -> None:
    files = numbered(50, 30, 10, 5)
    assert bins(files, head=5) == []
    assert bins(files, head=5, resting=True) == [[50, 30, 10, 5]]
    assert bins(numbered(10**6, 1), head=5, resting=True) == []


def test_a_run_reads_so_much_and_no_more() -> None:
    found = chosen(
        [live(9, partition=p, sequence=n, size=MIB) for p in range(90) for n in range(9)], AIMS, spec_id=0, head=9
    )
    assert sum(each.size_bytes for each in found) <= RUN_BYTES
    assert len(found) == RUN_BYTES // (9 * MIB)
    many = chosen([live(1, sequence=number) for number in range(3 * RUN_FILES)], AIMS, spec_id=0, head=5_000)
    assert [len(each.files) for each in many] == [RUN_FILES]


def test_those_come_first_that_spare_most() -> None:
    small = [live(7, partition=2, sequence=n, size=1_000) for n in range(8)]
    large = [live(7, partition=1, sequence=n, size=10 * MIB) for n in range(8)]
    found = chosen([*large, *small], AIMS, spec_id=0, head=9)
    assert [each.files[0].partition for each in found] == [(2,), (1,)]


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 40 * MIB), st.integers(0, 3)), max_size=80),
    st.integers(0, 2_000),
    st.sampled_from([None, 10, 10_000]),
)
def test_every_bin_keeps_the_rules(given_files: list[tuple[int, int, int]], head: int, most_rows: int | None) -> None:
    files = [LiveFile(str(n), size, rows, (p,), 0, n) for n, (rows, size, p) in enumerate(given_files)]
    found = chosen(files, AIMS, spec_id=0, head=head, most_rows=most_rows)
    taken = [file.path for each in found for file in each.files]
    assert len(taken) == len(set(taken))
    for each in found:
        assert worth(each.files, SETTLED_GROWTH)
        assert len({file.partition for file in each.files}) == 1
        assert each.size_bytes <= AIMS.target_bytes
        assert most_rows is None or each.rows <= most_rows
        assert max(file.size_bytes for file in each.files) < AIMS.small_bytes
        assert [file.sequence for file in each.files] == sorted(file.sequence for file in each.files)


@dataclass
class Lifetime:
    """A table over days, without its bytes: each file knows how often its oldest rows have been written again."""

    size_of: Callable[[int], int]
    files: dict[str, LiveFile] = field(default_factory=dict)
    again: dict[str, int] = field(default_factory=dict)
    written: int = 0
    rewritten: int = 0
    most: int = 0
    _sequence: int = 0
    _names: count[int] = field(default_factory=count)

    def commit(self, parts: Sequence[tuple[int, int]]) -> None:
        """Add a file of so many rows in each partition."""
        self._sequence += 1
        for partition, rows in parts:
            self._add(rows, partition, 0)
            self.written += rows

    def run(self) -> bool:
        """Do one run of compaction; False: there is nothing to do."""
        found: tuple[Bin, ...] = chosen(self.files.values(), AIMS, spec_id=0, head=self._sequence)
        self._sequence += bool(found)
        for each in found:
            again = 1 + max(self.again.pop(file.path) for file in each.files)
            for file in each.files:
                del self.files[file.path]
            self._add(each.rows, each.files[0].partition[0], again)
            self.rewritten += each.rows
        return bool(found)

    def settle(self) -> None:
        """Run until nothing is left to do, long after the last commit."""
        self._sequence += SETTLED_AFTER
        while self.run():
            self._sequence += SETTLED_AFTER

    def small(self, partition: int) -> int:
        return sum(file.size_bytes < AIMS.small_bytes for file in self.files.values() if file.partition == (partition,))

    def _add(self, rows: int, partition: int, again: int) -> None:
        name = str(next(self._names))
        self.files[name] = LiveFile(name, self.size_of(rows), rows, (partition,), 0, self._sequence)
        self.again[name] = again
        self.most = max(self.most, again)


def most_left(rows: int) -> float:
    """How many small files a growing partition has at most behind a run: each but the first has over half of the rows
    of all before it, and so the sum grows by a half with each."""
    return AIMS.min_files + math.log(max(rows, 1), 1.5)


@pytest.mark.parametrize(
    ("rows", "row_bytes", "late", "seconds"),
    [(1, 60, 0.0, 2 * DAY_S), (50, 60, 0.001, DAY_S + 30_000), (5_000, 25, 0.0, 20_000), (50_000, 25, 0.0, 20_000)],
)
def test_days_of_commits_by_the_second(rows: int, row_bytes: int, late: float, seconds: int) -> None:
    """Partitioned by day, with some late rows; the keeper runs every half minute."""
    random = Random(7)
    table = Lifetime(lambda count: FOOTER_BYTES + row_bytes * count)
    for second in range(seconds):
        day = second // DAY_S
        parts = [(day, random.randint(1, 2 * rows))]
        if day and random.random() < late:
            parts.append((day - 1, random.randint(1, 10)))
        table.commit(parts)
        if second % 30 == 29:
            table.run()
            if second % 600 == 599:
                assert table.small(day) <= most_left(sum(file.rows for file in table.files.values()))
    table.settle()
    most_rows = max(file.rows for file in table.files.values())
    # A partition's last step, when it has settled, may be a short one; so may those of late rows.
    assert table.most <= math.log(most_rows, float(SETTLED_GROWTH if late else GROWTH)) + 2
    # A run finds half a minute's files, so the first time makes thirty of one.
    assert table.rewritten <= table.written * (2 + math.log(max(most_rows / (30 * rows), 1), float(GROWTH)))
    assert all(table.small(day) <= 10 for day in range(2))
    assert sum(file.rows for file in table.files.values()) == table.written


def test_late_events_over_hundreds_of_partitions() -> None:
    random = Random(11)
    table = Lifetime(lambda count: FOOTER_BYTES + 40 * count)
    for step in range(3_000):
        table.commit([(random.randrange(300), random.randint(1, 5)) for _ in range(20)])
        if step % 30 == 29:
            table.run()
    table.settle()
    assert all(table.small(partition) <= most_left(3_000) for partition in range(300))
    assert len(table.files) < 300 * 10
    assert table.most <= math.log(2_000, float(SETTLED_GROWTH))


def test_runs_keep_up_with_hundreds_of_files_at_each_commit() -> None:
    """300 partitions of which each gets a file every ten seconds; the keeper rests, works and rests again."""
    random = Random(13)
    table = Lifetime(lambda count: FOOTER_BYTES + 40 * count)
    kept = []
    for step in range(1, 161):
        table.commit([(partition, random.randint(1, 9)) for partition in range(300)])
        if step % 4 == 0:
            table.run()
            kept.append(len(table.files))
    # A partition's newest eight files wait for each other; behind them are few.
    assert max(kept[20:]) < 300 * 14
    assert max(kept[30:]) <= 1.1 * max(kept[20:30])
