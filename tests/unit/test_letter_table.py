"""The table of dead letters: what `apply` makes of it, what a row of it says, and a post that opens nothing early."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from pyiceberg.types import BinaryType, LongType, StringType

from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import identifier_of, load_table
from headrace.schemas.errors import Bug, NotApplied, ProductStopped
from headrace.schemas.product import Domain
from headrace.selfserve.resources.letter_table import LetterTable as Resource
from headrace.sinks.batch import Letter
from headrace.sinks.commit import stage
from headrace.sinks.dead_letters import table as letter_table
from headrace.sinks.dead_letters import topic as deadletters
from headrace.sinks.dead_letters.table import LETTER_SCHEMA, LETTERS_OF, LetterTable, filed
from headrace.sinks.dead_letters.topic import DeadLetters
from headrace.sinks.draft import Draft
from headrace.streams.ledger import Ledger
from tests.support.lake import Lake, product_of
from tests.support.position_deletes import delete_positions

if TYPE_CHECKING:
    from pathlib import Path

    from pyiceberg.manifest import DataFile
    from pyiceberg.table.update.schema import UpdateSchema

    from headrace.selfserve.resources.clients import Clients
    from headrace.streams.admin import Admin

SCHEMA = AvroSchema.parse('{"type": "record", "name": "Event", "fields": [{"name": "id", "type": "long"}]}')
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
LEDGER = Ledger("a-topic", 2, {}, {}, {})
LETTERS = (
    Letter(0, 7, 2**32 - 1, "unknown-schema", b"ann", b"\0secret", 1_000, (("trace", b"pii"), ("trace", None))),
    Letter(1, 9, None, "null-value", None, None),
)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, SCHEMA)


def resource(lake: Lake) -> tuple[Resource, Clients]:
    domain = Domain("shop", "shop-team", "", "shop", {})
    return Resource(domain, lake.product), cast("Clients", SimpleNamespace(catalog=lambda _: lake.catalog))


def test_apply_makes_it_and_mends_its_properties(lake: Lake) -> None:
    wanted, clients = resource(lake)
    (missing,) = wanted.diff(wanted.read(clients))
    assert (missing.kind, missing.cause, str(missing)) == ("create", "letter-table-missing", "table shop.orders__dlq")
    wanted.apply(clients, missing)
    assert wanted.diff(wanted.read(clients)) == ()
    table = load_table(lake.catalog, filed(lake.product))
    with table.transaction() as transaction:
        transaction.set_properties({"commit.manifest.min-count-to-merge": "7"})
    (changed,) = wanted.diff(wanted.read(clients))
    assert (changed.kind, str(changed)) == (
        "change",
        "table shop.orders__dlq: commit.manifest.min-count-to-merge 7 → 50",
    )
    wanted.apply(clients, changed)
    assert wanted.diff(wanted.read(clients)) == ()


def test_a_table_of_somebody_else_is_only_told_of(lake: Lake) -> None:
    wanted, clients = resource(lake)
    lake.catalog.create_table(identifier_of(filed(lake.product)), LETTER_SCHEMA)
    (foreign,) = wanted.diff(wanted.read(clients))
    assert (foreign.kind, foreign.cause) == ("never", "letter-table-foreign")


def test_a_row_says_all_of_a_letter_but_its_bytes(lake: Lake) -> None:
    LetterTable(lake.catalog, lake.product, lambda: NOW).send(LETTERS, LEDGER)
    table = load_table(lake.catalog, filed(lake.product))
    assert table.properties[LETTERS_OF] == "shop.orders"
    rows: list[dict[str, Any]] = sorted(table.scan().to_arrow().to_pylist(), key=lambda row: row["_kafka_offset"])
    assert rows == [
        {
            "_kafka_partition": 0,
            "_kafka_offset": 7,
            "_kafka_timestamp": dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC),
            "_generation": 2,
            "topic_id": "a-topic",
            "reason": "unknown-schema",
            "schema_id": 2**32 - 1,
            "key_bytes": 3,
            "value_bytes": 7,
            "header_names": ["trace", "trace"],
            "refused_at": NOW,
        },
        {
            "_kafka_partition": 1,
            "_kafka_offset": 9,
            "_kafka_timestamp": None,
            "_generation": 2,
            "topic_id": "a-topic",
            "reason": "null-value",
            "schema_id": None,
            "key_bytes": None,
            "value_bytes": None,
            "header_names": [],
            "refused_at": NOW,
        },
    ]
    assert not any(isinstance(field.field_type, BinaryType) for field in LETTER_SCHEMA.fields)


def test_letters_that_are_there_make_no_commit(lake: Lake) -> None:
    register = LetterTable(lake.catalog, lake.product, lambda: NOW)
    register.send(LETTERS[:1], LEDGER)
    first = load_table(lake.catalog, filed(lake.product)).metadata.current_snapshot_id
    register.send(LETTERS[:1], LEDGER)
    assert load_table(lake.catalog, filed(lake.product)).metadata.current_snapshot_id == first
    register.send(LETTERS, LEDGER)
    assert len(load_table(lake.catalog, filed(lake.product)).scan().to_arrow()) == 2


def test_a_column_that_somebody_has_added_stays_empty(lake: Lake) -> None:
    register = LetterTable(lake.catalog, lake.product, lambda: NOW)
    register.send(LETTERS[:1], LEDGER)
    with load_table(lake.catalog, filed(lake.product)).update_schema() as update:
        update.add_column("note", BinaryType())
    register.send(LETTERS[1:], LEDGER)
    assert load_table(lake.catalog, filed(lake.product)).scan().to_arrow()["note"].to_pylist() == [None, None]


def rename_a_column(update: UpdateSchema) -> None:
    update.rename_column("_kafka_offset", "offset")


def drop_a_column(update: UpdateSchema) -> None:
    update.delete_column("topic_id")


def add_a_required_column(update: UpdateSchema) -> None:
    update.add_column("note", StringType(), required=True, default_value="none")


CHANGES = {"_kafka_offset": rename_a_column, "topic_id": drop_a_column, "note": add_a_required_column}


@pytest.mark.parametrize("column", CHANGES)
def test_a_table_whose_columns_somebody_has_changed_is_told_of(lake: Lake, column: str) -> None:
    register = LetterTable(lake.catalog, lake.product, lambda: NOW)
    register.send(LETTERS[:1], LEDGER)
    with load_table(lake.catalog, filed(lake.product)).update_schema(allow_incompatible_changes=True) as update:
        CHANGES[column](update)
    with pytest.raises(ProductStopped, match=column) as stopped:
        register.send(LETTERS, LEDGER)
    assert stopped.value.where == "table shop.orders__dlq"
    wanted, clients = resource(lake)
    (changed,) = wanted.diff(wanted.read(clients))
    assert (changed.kind, changed.cause) == ("never", "letter-table-columns")
    assert column in changed.why


def test_a_column_that_is_gone_or_wider_stops_nothing(lake: Lake) -> None:
    register = LetterTable(lake.catalog, lake.product, lambda: NOW)
    register.send(LETTERS[:1], LEDGER)
    with load_table(lake.catalog, filed(lake.product)).update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("reason")
        update.update_column("_kafka_partition", LongType())
    register.send(LETTERS, LEDGER)
    assert len(load_table(lake.catalog, filed(lake.product)).scan().to_arrow()) == 2


def test_rows_without_a_ledger_are_for_tables_that_have_none(lake: Lake) -> None:
    file = object()
    with pytest.raises(Bug):
        stage(lake.table, Draft(None, (cast("Any", file),)))


def test_a_post_opens_no_producer_before_the_first_letter_and_none_without_a_topic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(deadletters, "open_producer", opened.append)

    def topic(name: str) -> None:
        raise NotApplied("the topic does not exist", where=name)

    post = DeadLetters({}, product_of(SCHEMA), cast("Admin", SimpleNamespace(topic=topic)), Event())
    with pytest.raises(NotApplied) as missing:
        post.send(LETTERS, LEDGER)
    post.close()
    assert (missing.value.where, opened) == ("shop.orders.dlq", [])


def test_small_files_become_one_and_letters_that_somebody_has_deleted_do_not_come_back(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letter_table, "_COMPACTED_EACH", 1)
    register = LetterTable(lake.catalog, lake.product, lambda: NOW)

    def files() -> list[DataFile]:
        return [task.file for task in load_table(lake.catalog, filed(lake.product)).scan().plan_files()]

    for offset in range(8):
        register.send([replace(LETTERS[0], offset=offset)], LEDGER)
    assert [file.record_count for file in files()] == [8]
    delete_positions(load_table(lake.catalog, filed(lake.product)), files()[0], [3])
    for offset in range(8, 20):
        register.send([replace(LETTERS[0], offset=offset)], LEDGER)
    assert len(files()) == 13
    rows = load_table(lake.catalog, filed(lake.product)).scan().to_arrow()
    assert sorted(rows["_kafka_offset"].to_pylist()) == [*range(3), *range(4, 20)]
