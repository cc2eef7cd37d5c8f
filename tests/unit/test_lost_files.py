"""Files that are gone: on a handle that others have left behind that is no damage, on the table as it is now it is."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyiceberg import manifest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import load_file_io
from pyiceberg.serializers import FromInputFile

from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import load_table, on_handle
from headrace.schemas.errors import LostFile, Unavailable
from headrace.sinks.attempts import Attempts
from headrace.sinks.draft import Draft
from headrace.sinks.landing import Step
from tests.support.faulty import Crash
from tests.support.lake import Lake
from tests.support.meshes import ORDER
from tests.support.stages import Stage, crash
from tests.support.workers import At

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.typedef import Identifier

EVENT = pa.struct([("id", pa.string()), ("amount", pa.int64()), ("email", pa.string())])
ROWS = pa.array([{"id": "a", "amount": 1, "email": None}], EVENT)


def local(location: str) -> Path:
    return Path(location.removeprefix("file://"))


def manifest_list(table: Table) -> Path:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return local(snapshot.manifest_list)


def expire_all_but_the_head(catalog: Catalog, before: Table) -> None:
    """Do as another engine does that commits, expires all that was there, and deletes what only that needs."""
    table = catalog.load_table(("shop", "orders"))
    table.append(table.schema().as_arrow().empty_table())
    table.refresh()
    table.maintenance.expire_snapshots().by_ids([each.snapshot_id for each in before.snapshots()]).commit()
    for snapshot in before.snapshots():
        local(snapshot.manifest_list).unlink(missing_ok=True)
    manifest.clear_manifest_cache()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path, AvroSchema.parse(json.dumps(ORDER)))
    lake.add(ROWS)
    manifest.clear_manifest_cache()
    return lake


def test_a_commit_on_a_handle_whose_files_are_gone_is_made_on_a_new_one(lake: Lake) -> None:
    handle = lake.reload()
    attempts = Attempts(lake.catalog, lake.product)
    expire_all_but_the_head(lake.catalog, handle)
    with pytest.raises(Unavailable, match="others have moved the table on"):
        attempts.stage(handle, Draft(lake.ledger))
    attempts.send(lake.reload(), attempts.stage(lake.table, Draft(lake.ledger)))
    assert attempts.landed(lake.reload()) is not None


def test_a_table_that_has_not_moved_is_damaged(lake: Lake) -> None:
    handle = lake.reload()
    manifest_list(handle).unlink()
    with pytest.raises(LostFile, match="is gone"):
        Attempts(lake.catalog, lake.product).stage(handle, Draft(lake.ledger))


def test_reading_on_a_handle_is_judged_alike(lake: Lake) -> None:
    handle = lake.reload()
    expire_all_but_the_head(lake.catalog, handle)
    with (
        pytest.raises(Unavailable, match="others have moved the table on"),
        on_handle(lake.catalog, lake.product, handle),
    ):
        handle.scan().to_arrow()


class Late(SqlCatalog):
    """A catalog that is asked, and before its answer is read others commit so often that what it names is deleted."""

    meanwhile: Callable[[], object] | None = None

    def load_table(self, identifier: str | Identifier) -> Table:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            named = super().load_table(identifier).metadata_location
            meanwhile()
            local(named).unlink()
            FromInputFile.table_metadata(load_file_io({}, named).new_input(named))
        return super().load_table(identifier)


def test_metadata_that_was_too_old_to_be_kept_when_it_was_read_is_asked_for_again(lake: Lake) -> None:
    late = Late("shop", **lake.catalog.properties)
    late.meanwhile = partial(lake.add, ROWS)
    before = lake.reload().metadata_location
    assert load_table(late, lake.product).metadata_location != before
    assert late.meanwhile is None


def test_a_landing_goes_on_when_its_handle_is_left_behind(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with pytest.raises(Crash):
        stage.worker(At(Step.LANDED, 1, crash)).run()

    def leave_behind() -> None:
        catalog = stage.catalog()
        before = load_table(catalog, stage.product)
        expire_all_but_the_head(catalog, before)

    worker = stage.worker(At(Step.STAGE, 1, leave_behind))
    worker.run()
    assert [error.what for error in worker.unknown] == [
        "others have moved the table on, and deleted files that only its former state needs"
    ]
    stage.assert_exactly_once()
