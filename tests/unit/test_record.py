"""What the auditor reads of a ledger: operators' records, and nothing where there is none that can be read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from headrace.governance.record import Record, record_of
from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import ProductStopped
from headrace.sinks.commit import stage
from headrace.sinks.draft import Draft
from headrace.streams.ledger import PROPERTY_KEY, Accepted, Ledger, Position
from tests.support.lake import TOPIC_ID, Lake
from tests.support.meshes import ORDER

if TYPE_CHECKING:
    from pathlib import Path

LOST = {0: (Accepted(3, 7, 1_700_000_000),)}
LEDGER = Ledger(TOPIC_ID, 2, {0: Position(20, 19)}, {}, {}, LOST)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", AvroSchema.parse(json.dumps(ORDER)))


def expired(lake: Lake, text: str | None) -> Lake:
    """Let others expire the history, and put a text into the table's property."""
    lake.send(stage(lake.table, Draft(LEDGER)))
    lake.reload()
    for _ in range(2):
        lake.table.append(lake.table.scan().to_arrow())
        lake.reload()
    head = lake.table.current_snapshot()
    assert head is not None
    old = [each.snapshot_id for each in lake.table.snapshots() if each.snapshot_id != head.snapshot_id]
    lake.table.maintenance.expire_snapshots().by_ids(old).commit()
    with lake.reload().transaction() as transaction:
        if text is None:
            transaction.remove_properties(PROPERTY_KEY)
        else:
            transaction.set_properties({PROPERTY_KEY: text})
    lake.reload()
    return lake


def test_a_table_without_a_ledger_has_no_record(lake: Lake) -> None:
    assert record_of(lake.table, {}, 1) is None


def test_the_newest_ledger_is_the_record(lake: Lake) -> None:
    lake.send(stage(lake.table, Draft(LEDGER)))
    assert record_of(lake.reload(), {}, 1) == Record(TOPIC_ID, 2, LOST)


def test_where_others_expired_the_history_the_property_serves_if_it_agrees_with_the_rows(lake: Lake) -> None:
    expired(lake, LEDGER.to_json(snapshot_id=1))
    assert record_of(lake.table, {0: 19}, 2) == Record(TOPIC_ID, 2, LOST)
    assert record_of(lake.table, {0: 18}, 2) is None


@pytest.mark.parametrize("text", [None, "{}"])
def test_a_damaged_record_excuses_nothing(lake: Lake, text: str | None) -> None:
    assert record_of(expired(lake, text).table, {0: 19}, 2) is None


def test_a_record_of_a_newer_headrace_is_not_guessed_at(lake: Lake) -> None:
    expired(lake, '{"v": 99}')
    with pytest.raises(ProductStopped, match="format 99"):
        record_of(lake.table, {0: 19}, 2)
