"""The proof's memory does not grow with the table: ten times as many rows take no more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.volume import grow, prove, ticking

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.meshes import Cluster

ROWS = 1_000_000
MORE = 10
# Far above what it may grow by is what 16 bytes for each row more would take.
GROWTH = 0.10


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the most memory that a process had")
@pytest.mark.timeout(600)
def test_ten_times_the_rows_take_no_more_memory(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = ticking(cluster, tmp_path / "mesh", prefix)
    grow(mesh, ROWS)
    small = prove(mesh)
    grow(mesh, ROWS * (MORE - 1))
    large = prove(mesh)
    assert (small.holds, small.events, small.rows) == (True, ROWS, ROWS)
    assert (large.holds, large.events, large.rows) == (True, ROWS * MORE, ROWS * MORE)
    assert large.peak_mb <= small.peak_mb * (1 + GROWTH), (small, large)
