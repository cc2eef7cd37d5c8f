"""Files that compaction cannot rewrite: they are told of and left, and the others do not wait for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from headrace.schemas.errors import ProductStopped
from headrace.sinks.upkeep.compaction import Compactor
from tests.support.compacting import SMALL, compacted, live, once
from tests.unit.test_partitioned_tables import events, lake_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def shortened(path: str) -> None:
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def truncated(path: str) -> None:
    with open(path, "r+b") as file:  # noqa: PTH123
        file.truncate(100)


def without_ids(path: str) -> None:
    rows = pq.read_table(path, columns=["id"])
    pq.write_table(pa.table({"id": rows.column("id")}), path)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (shortened, "a data file holds 0 rows, and its manifest says 1"),
        (truncated, "a data file cannot be read"),
        (without_ids, "a data file cannot be read"),
    ],
)
def test_a_file_that_cannot_be_rewritten_is_told_of_and_left_and_the_others_do_not_wait_for_it(
    tmp_path: Path, spoil: Callable[[str], None], what: str
) -> None:
    lake = lake_of(tmp_path, [])
    for _ in range(4):
        lake.add(events(lake, {"id": 1}))
    spoilt = live(lake)[0].file_path
    spoil(spoilt.removeprefix("file://"))
    with capture_logs() as logs:
        done = once(lake)
    assert [what in entry["what"] for entry in logs] == [True]
    assert done is not None
    assert (done.files, done.into) == (3, 1)
    assert spoilt in {file.file_path for file in live(lake)}


def test_where_nothing_else_is_to_do_a_damaged_file_is_an_error_once(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [])
    for _ in range(3):
        lake.add(events(lake, {"id": 1}))
    truncated(live(lake)[0].file_path.removeprefix("file://"))
    place = lake.table.metadata_location
    compactor = Compactor(lake.product, SMALL)
    with pytest.raises(ProductStopped, match="a data file cannot be read"):
        compactor.rewrite(lake.table)
    assert compactor.rewrite(lake.table) is None
    assert lake.reload().metadata_location == place


def test_encrypted_files_are_left(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [])
    for number in range(4):
        written = lake.write(events(lake, {"id": 1}))
        if number < 3:
            # headrace writes none: a manifest's place for it is filled.
            written.files[0][12] = b"key"
        staged, lake.ledger = lake.staged(written, 1)
        lake.send(staged)
        lake.reload()
    assert once(lake) is None
    for _ in range(2):
        lake.add(events(lake, {"id": 1}))
    assert compacted(lake).files == 3
