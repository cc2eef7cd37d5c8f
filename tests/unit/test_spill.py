"""Rows that are put away by windows come back all of them, in order, whatever order they came in."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.governance.marks import Longs, Marks
from headrace.governance.spill import Spill
from headrace.schemas.errors import Unavailable

# Far apart, negative and close together: rows of one file and of many.
offsets = st.integers(-(2**20), 2**20) | st.integers(0, 30) | st.integers(2**62, 2**63 - 1)
row = st.tuples(st.integers(1, 2), st.integers(0, 2), offsets, st.integers(-1, 3))


def longs(*values: int) -> Longs:
    return np.array(values, np.int64)


def put(spill: Spill, rows: list[tuple[int, int, int, int]]) -> None:
    generations, partitions, places, stamps = (
        np.array([each[column] for each in rows], np.int64) for column in range(4)
    )
    spill.add(generations, partitions, Marks(places, stamps))


@settings(deadline=None)
@given(st.lists(st.lists(row, max_size=20), max_size=4))
def test_rows_come_back_by_place_and_offset(batches: list[list[tuple[int, int, int, int]]]) -> None:
    with TemporaryDirectory() as folder:
        spill = Spill(Path(folder, "rows"))
        for batch in batches:
            put(spill, batch)
        rows = sorted(each for batch in batches for each in batch)
        assert spill.places == {each[:2] for each in rows}
        for place in spill.places:
            pieces = list(spill.read(*place))
            found = [
                pair for each in pieces for pair in zip(each.offsets.tolist(), each.timestamps_ms.tolist(), strict=True)
            ]
            assert found == [each[2:] for each in rows if each[:2] == place]
            assert spill.last_offsets[place] == found[-1][0]
            edges = [(int(each.offsets[0]), int(each.offsets[-1])) for each in pieces]
            assert all(earlier[1] < later[0] for earlier, later in pairwise(edges)), "an offset is in one piece"


def test_many_rows_in_no_order(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "rows")
    count = 300_000
    shuffled = np.random.default_rng(7).permutation(count).astype(np.int64)
    spill.add(np.ones(count, np.int64), shuffled % 3, Marks(shuffled * 5, shuffled))
    for partition in range(3):
        found = np.concatenate([piece.offsets for piece in spill.read(1, partition)])
        assert found.tolist() == [offset * 5 for offset in range(partition, count, 3)]
    assert list(spill.read(1, 3)) == []


def test_a_disk_that_does_not_take_rows(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="temporary files") as error:
        Spill(tmp_path / "not there" / "rows")
    assert error.value.hint is not None
    assert "TMPDIR" in error.value.hint


def test_rows_that_are_gone_are_no_rows_that_never_were(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "rows")
    put(spill, [(1, 0, 5, 0), (1, 0, 6, 0)])
    (file,) = (tmp_path / "rows").iterdir()
    file.write_bytes(file.read_bytes()[:16])
    with pytest.raises(Unavailable, match="gone"):
        list(spill.read(1, 0))
