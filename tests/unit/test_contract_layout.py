"""Contracts: what they set of topic, sink and table, and how they want the table laid out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.contract_layout import TableColumns
from headrace.schemas.product import PartitionField, RefusedVersions, SortField
from tests.support.contracts import KEY, contract_of, custom, document, faults_of, masked, table


def by(name: str, transform: object = None, **more: Any) -> dict[str, Any]:
    chosen = {} if transform is None else {"customProperties": custom("iceberg.transform", transform)}
    return {"name": name, "partitioned": True, **chosen, **more}


def laid(*properties: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return document(schema=[table(KEY, *properties)], **changes)


def sort(*entries: object) -> list[dict[str, Any]]:
    return custom("iceberg.sortOrder", list(entries))


def properties(**given: object) -> list[dict[str, Any]]:
    return custom(
        "iceberg.tableProperties", {name.replace("__", "-").replace("_", "."): v for name, v in given.items()}
    )


def test_a_contract_that_says_nothing_gets_the_defaults() -> None:
    contract = contract_of(document())
    assert contract.cleanup_policy == "delete"
    assert contract.min_insync_replicas is None
    assert contract.partition_by == ()
    assert contract.sort_by == ()
    assert contract.table_properties == {}
    assert contract.refused_versions is RefusedVersions.WAIT


def test_settings_of_topic_sink_and_table() -> None:
    customs = [
        *custom("kafka.cleanup.policy", "compact,delete"),
        *custom("kafka.min.insync.replicas", 2),
        *custom("sink.refusedVersions", "dead-letter"),
        *properties(write_distribution__mode="hash", write_target__file__size__bytes=1 << 27, gc_enabled=True),
    ]
    retention = [{"property": "retention", "value": 7, "unit": "d"}]
    contract = contract_of(document(customProperties=customs, slaProperties=retention))
    assert contract.cleanup_policy == "compact,delete"
    assert contract.min_insync_replicas == 2
    assert contract.refused_versions is RefusedVersions.DEAD_LETTER
    assert contract.table_properties == {
        "write.distribution-mode": "hash",
        "write.target-file-size-bytes": "134217728",
        "gc.enabled": "true",
    }


def test_partitions_come_in_the_order_of_their_positions() -> None:
    contract = contract_of(
        laid(
            by("customer", "bucket[16]", partitionKeyPosition=3),
            by("_kafka_timestamp", "day", partitionKeyPosition=1),
            {"name": "ship_to", "properties": [by("country", partitionKeyPosition=2)]},
            {"name": "total", "partitioned": False, "partitionKeyPosition": -1},
        )
    )
    assert contract.partition_by == (
        PartitionField("_kafka_timestamp", "day"),
        PartitionField("ship_to.country", "identity"),
        PartitionField("customer", "bucket[16]"),
    )
    assert contract_of(laid(by("line"))).partition_by == (PartitionField("line", "identity"),)


def test_a_sort_order() -> None:
    entries = [
        {"field": "placed_at", "direction": "desc"},
        {"field": "ship_to.country"},
        {"field": "_kafka_offset", "direction": "asc", "nulls": "last"},
    ]
    assert contract_of(document(customProperties=sort(*entries))).sort_by == (
        SortField("placed_at", descending=True, nulls_first=False),
        SortField("ship_to.country", descending=False, nulls_first=True),
        SortField("_kafka_offset", descending=False, nulls_first=False),
    )


def test_a_masked_field_that_keeps_something_may_be_partitioned_by() -> None:
    assert contract_of(laid(by("email", "bucket[8]"))).partition_by == (PartitionField("email", "bucket[8]"),)


@pytest.mark.parametrize(
    ("customs", "fault"),
    [
        (custom("kafka.cleanup.policy", "delete,compact"), "choose delete or compact or compact,delete"),
        (custom("kafka.cleanup.policy", ["compact"]), "kafka.cleanup.policy is none of Kafka's policies"),
        (custom("kafka.min.insync.replicas", 0), "kafka.min.insync.replicas is a whole number from 1 to 32767"),
        (custom("kafka.min.insync.replicas", True), "kafka.min.insync.replicas is a whole number"),
        (custom("kafka.min.insync.replica", 1), "did you mean kafka.min.insync.replicas?"),
        (custom("sink.refusedVersions", "drop"), "choose wait or dead-letter"),
        (custom("sink.refusedVersions", None), "choose wait or dead-letter"),
        (custom("iceberg.tableProperties", ["gc.enabled"]), "iceberg.tableProperties maps names to values"),
        (properties(format__version=3), "format-version is 2 here: headrace writes tables of Iceberg's format 2"),
        (properties(write_format_default="orc"), "write.format.default is parquet here"),
        (properties(write_parquet_compression__codec="gzip"), "write.parquet.compression-codec is zstd here"),
        (properties(write_formt_default="orc"), "did you mean write.format.default?"),
        (properties(commit_retry_num__retries=4), "other engines would obey a retry property"),
        (properties(commit_manifest_min__count__to__merge=1), "headrace's commits, and their cost, rest on these"),
        (properties(write_metadata_delete__after__commit_enabled=False), "write.metadata.delete-after-commit.enabled"),
        (properties(headrace_ledger_main="{}"), "headrace keeps the product's position and masks there"),
        (properties(write_data_path="/tmp"), "the domain's storage is where its tables lie"),
        (properties(write_py__location__provider_impl="x"), "it names code"),
        (properties(encryption_key__id="k"), "headrace writes no encrypted files"),
        (properties(comment="x"), "it is the contract's description.purpose"),
        (properties(current__snapshot__id=1), "Iceberg reserves it"),
        (properties(gc_enabled=1.5), "gc.enabled takes a text, a whole number, true or false"),
        (properties(gc_enabled=None), "gc.enabled takes a text"),
        (properties(gc_enabled="x" * 1001), "of at most 1000 characters"),
        (properties(write_object__storage_enabled="yes"), "write.object-storage.enabled is true or false"),
        (custom("iceberg.tableProperties", {"a b": "c"}), "this is no name of a table property"),
        (custom("iceberg.sortOrder", "placed_at"), "iceberg.sortOrder is a list"),
        (sort("placed_at"), "an entry of the sort order names a field"),
        (sort({"field": 1}), "an entry of the sort order names a field"),
        (sort({"field": "placed_at", "order": "asc"}), "unknown key order"),
        (sort({"field": "placed_at", "direction": "up"}), "direction is asc or desc"),
        (sort({"field": "placed_at", "nulls": "nowhere"}), "nulls is first or last"),
        (sort({"field": "placed_at", "direction": ["asc"]}), "direction is asc or desc"),
        (sort({"field": "placed_at"}, {"field": "placed_at"}), "placed_at stands twice"),
        (sort({"field": "placd_at"}), "did you mean placed_at?"),
        (sort({"field": "items[].sku"}), "a field inside a list or map has many values a row"),
        (sort({"field": "items"}), "a list, map or record is no single value"),
        (sort({"field": "born"}), "the mask of this field leaves one value for all rows"),
        (sort({"field": "ship_to.street"}), "the mask of this field leaves one value for all rows"),
    ],
)
def test_faults_of_settings(customs: list[dict[str, Any]], fault: str) -> None:
    found = faults_of(document(customProperties=customs))
    assert fault in found
    assert found.count("c.yaml:") == 1, found


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ([by("placed_at", "days")], "this transform is not known (choose identity, year, month, day, hour, bucket[N]"),
        ([by("placed_at", ["day"])], "this transform is not known"),
        ([by("placed_at", "bucket[0]")], "this transform is not known"),
        ([by("customer", "truncate[4]")], "truncate[4] does not fit uuid (choose identity, bucket[N])"),
        ([by("total", "bucket[4]")], "bucket[4] does not fit double (choose identity)"),
        ([by("line", "day")], "day does not fit int (choose identity, bucket[N], truncate[W])"),
        ([by("_kafka_offset", "hour")], "hour does not fit long"),
        ([by("placed_on")], "the Avro schema has no such field (did you mean placed_at?)"),
        ([by("items")], "items: a list, map or record is no single value"),
        ([by("ship_to")], "ship_to: a list, map or record is no single value"),
        ([{"name": "items", "items": {"properties": [by("sku")]}}], "items[].sku: a field inside a list or map"),
        ([{"name": "notes", "map": {"value": {"properties": [by("text")]}}}], "notes{}.text: a field inside a list"),
        ([by("born", "year")], "born: the mask of this field leaves one value for all rows"),
        (
            [{**masked("email", "mask-to-fixed-value"), "partitioned": True}],
            "email: the mask of this field leaves one value for all rows",
        ),
        ([by("line"), by("total", partitionKeyPosition=1)], "the partitions have no order"),
        ([by(name, partitionKeyPosition=2) for name in ("line", "total")], "partitionKeyPosition 2 stands twice"),
        ([by("line", partitionKeyPosition=2)], "partitionKeyPosition goes from 1 to 1"),
        ([{"name": "line", "partitionKeyPosition": 1}], "the table is not partitioned by this field"),
        (
            [{"name": "line", "customProperties": custom("iceberg.transform", "day")}],
            "the table is not partitioned by this field",
        ),
        (
            [{"name": "line", "customProperties": custom("iceberg.transforms", "day")}],
            "did you mean iceberg.transform?",
        ),
        ([{"name": "_kafka_timestamp"}], "_kafka_timestamp stands here for partitioning alone"),
        ([by("_kafka_timestamp", primaryKey=True)], "_kafka_timestamp is the table's own column"),
        ([by("_kafka_timestamp", tags=["x"])], "(take tags out)"),
        ([{**masked("_kafka_key", "replace-with-null"), "partitioned": True}], "_kafka_key takes no mask"),
        ([by("_kafka_time")], "the Avro schema has no such field"),
    ],
)
def test_faults_of_partitions(given: list[dict[str, Any]], fault: str) -> None:
    found = faults_of(laid(*given))
    assert fault in found


def test_the_message_s_key_is_no_partition_if_it_is_masked() -> None:
    keys = [{"name": "email", "primaryKey": True}, by("_kafka_key", "bucket[4]")]
    found = faults_of(document(schema=[table(*keys)]))
    assert "_kafka_key: the mask of this field leaves one value" in found


def test_a_branch_of_a_union_is_a_column() -> None:
    union = {"name": "who", "type": ["null", "string", {"type": "array", "items": "long"}]}
    schema = AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": [union]}))
    columns = TableColumns(schema, {}, ())
    assert columns.refusal("who.string") == ("", "")
    assert str(columns.type_of("who.string")) == "string"
    assert "no single value" in columns.refusal("who.array")[0]
    assert "no single value" in columns.refusal("who")[0]
    assert "no such field" in columns.refusal("who.long")[0]


def test_only_compacting_keeps_events_for_ever() -> None:
    retention = [{"property": "retention", "value": 7, "unit": "d"}]
    found = faults_of(document(customProperties=custom("kafka.cleanup.policy", "compact"), slaProperties=retention))
    assert "keeps each key's last event for ever" in found
    contract = contract_of(document(customProperties=custom("kafka.cleanup.policy", "compact")))
    assert contract.cleanup_policy == "compact"


def test_all_faults_of_a_layout_in_one_run_each_at_its_place() -> None:
    whole = laid(
        by("placed_at", "dya", partitionKeyPosition=1),
        by("total", "bucket[4]", partitionKeyPosition=1),
        by("nothing", partitionKeyPosition=3),
        customProperties=[
            *custom("kafka.cleanup.policy", "x"),
            *properties(format__version=1, commit_retry_num__retries=1),
            *sort({"field": "nowhere", "direction": "x", "nulls": "y"}),
        ],
    )
    found = faults_of(whole).splitlines()
    assert len(found) == 10, found
    assert len({line.split(" ")[0] for line in found}) == 10, found
