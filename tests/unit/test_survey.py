"""Looking again and again: what need not be read a second time, and what must be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.table.update import RemovePropertiesUpdate, SetPropertiesUpdate

from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import DamagedLedger, HeadraceError
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.backlog import LetterRows
from headrace.selfserve.stack import Endpoints
from headrace.selfserve.survey import Survey
from headrace.streams.ledger import PROPERTY_KEY
from tests.support.lake import Lake
from tests.support.meshes import ORDER, ORDERS, write_mesh
from tests.support.workers import Log, Mailbox, Worker

if TYPE_CHECKING:
    from pyiceberg.table import Table

SCHEMA = AvroSchema.parse('{"type": "record", "name": "Event", "fields": [{"name": "id", "type": "long"}]}')


def events(*ids: int) -> pa.StructArray:
    return pa.array([{"id": i} for i in ids], pa.struct({"id": pa.int64()}))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, SCHEMA)


def lose_files(table: Table) -> None:
    """Remove the table's data files: whoever reads rows fails."""
    shutil.rmtree(Path(urlparse(table.location()).path) / "data")


def counted(rows: LetterRows, lake: Lake, *offsets: int) -> int:
    return rows.count(lake.reload(), lake.product, lake.ledger, {0: np.array(offsets, np.int64)})


# --- dead letters and rows ---


def test_a_letter_is_compared_with_the_table_once(lake: Lake) -> None:
    rows = LetterRows()
    lake.add(events(1, 2, 3))
    assert counted(rows, lake, 1) == 1
    lose_files(lake.table)
    assert counted(rows, lake, 1) == 1
    for ids in range(4, 8):
        lake.add(events(ids))
        assert counted(rows, lake, 1, 100) == 1, "what is not landed yet is not looked for"
    assert counted(rows, lake) == 0
    with pytest.raises(HeadraceError):
        counted(rows, lake, 1, 2)


def test_new_letters_are_compared_too(lake: Lake) -> None:
    rows = LetterRows()
    lake.add(events(1, 2, 3))
    assert counted(rows, lake, 0) == 1
    lake.add(events(4))
    assert counted(rows, lake, 0, 2, 3) == 3


def test_a_letter_is_compared_once_its_offset_is_behind_the_position(lake: Lake) -> None:
    rows = LetterRows()
    lake.add(events(1))
    assert counted(rows, lake, 1) == 0
    lake.add(events(2))
    assert counted(rows, lake, 1) == 1


def test_all_letters_are_compared_again_once_somebody_else_has_changed_the_table(lake: Lake) -> None:
    rows = LetterRows()
    first = lake.add(events(1, 2, 3))
    assert counted(rows, lake, 1) == 1
    lake.table.delete("id = 2")
    assert counted(rows, lake, 1) == 0
    lake.table.manage_snapshots().rollback_to_snapshot(first).commit()
    assert counted(rows, lake, 1) == 1


# --- a table whose history others have expired ---


def test_a_table_whose_history_is_gone_is_scanned_once(tmp_path: Path) -> None:
    write_mesh(tmp_path, Endpoints("127.0.0.1:9", "http://127.0.0.1:9"), "t.", {ORDERS: ORDER})
    # The survey does without Kafka, and need not wait for it.
    file = tmp_path / "mesh.yaml"
    file.write_text(file.read_text().replace("kafka: {", 'kafka: {sasl.password: "${env:HEADRACE_UNSET}", '))
    mesh = load_mesh(tmp_path, environment="cluster")
    product = mesh.product(ORDERS)
    catalog = open_catalog(mesh.environment, mesh.domain_of(product))
    Worker(catalog, Log(product), Mailbox()).run()
    table = load_table(catalog, product)
    table.append(table.schema().as_arrow().empty_table())
    old = [snapshot.snapshot_id for snapshot in table.snapshots()][:-1]
    table.maintenance.expire_snapshots().by_ids(old).commit()
    catalog.commit_table(load_table(catalog, product), (), (RemovePropertiesUpdate(removals=[PROPERTY_KEY]),))
    survey = Survey(mesh, [product])

    def faults() -> list[type[HeadraceError]]:
        (found,) = survey.look().products
        assert found.rows == len(Log(product).rows())
        return [type(fault) for fault in found.faults]

    assert faults() == [DamagedLedger]
    lose_files(table)
    assert faults() == [DamagedLedger], "the table's files were read again"
    # Whatever is committed is a reason to look again.
    catalog.commit_table(load_table(catalog, product), (), (SetPropertiesUpdate(updates={"a": "b"}),))
    assert faults() == []
