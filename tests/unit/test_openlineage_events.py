"""What OpenLineage is told of a run: names, schemas, which column comes from where and is masked."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openlineage.client.naming.dataset import ABFSS, GCS, HDFS, S3, Kafka, LocalFileSystem
from openlineage.client.serde import Serde
from openlineage.client.uuid import generate_new_uuid
from pyiceberg.types import IntegerType, ListType, MapType, NestedField, StringType, StructType

from headrace.schemas.avro import AvroSchema
from headrace.schemas.changes import column_paths
from headrace.schemas.masks import Mask
from headrace.schemas.paths import lies_in
from headrace.selfserve.lineage.columns import Masked, column_lineage, table_fields, topic_fields
from headrace.selfserve.lineage.events import (
    Counts,
    Moment,
    Origin,
    RunState,
    TableFacts,
    kafka_namespace,
    place_of_table,
    run_event,
)
from headrace.selfserve.lineage.tables import facts_of
from tests.support.lake import Lake, product_of
from tests.support.meshes import ORDER
from tests.support.openlineage import facets_of, refused

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = AvroSchema.parse(json.dumps(ORDER))
PRODUCT = product_of(SCHEMA)
AT = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
ORIGIN = Origin(str(generate_new_uuid()), "test.cluster", "kafka://broker:9092", PRODUCT, "0.1.0")
EMAIL = {"email": Mask.HMAC_SHA_256}


def facts(*columns: NestedField, masks: dict[str, Mask] | None = None, key: bool = False) -> TableFacts:
    masked = Masked(masks or {}, key)
    return TableFacts(columns, "s3://shop/orders", masked, 7, ("shop", "rest"), "https://catalog.example.org/api")


def told(moment: Moment, table: TableFacts | None, origin: Origin = ORIGIN) -> dict[str, Any]:
    """Return the event as it is sent."""
    event: dict[str, Any] = json.loads(Serde.to_json(run_event(origin, moment, table)))
    return event


def test_an_event_is_one_by_the_librarys_own_classes(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA, EMAIL)
    counts = Counts(rows=5, letters=2, read_bytes=300, written_bytes=1_000, snapshot_id=8)
    event = told(
        Moment(RunState.FAIL, AT, counts, "the topic was made anew"), facts_of(lake.table, PRODUCT, lake.catalog)
    )
    assert not refused(event)
    assert event["eventType"] == "FAIL"
    assert event["eventTime"] == "2026-11-23T12:30:00+00:00"
    assert event["producer"] == "pkg:pypi/headrace@0.1.0"
    assert (event["job"]["namespace"], event["job"]["name"]) == ("test.cluster", "sink.shop.orders")
    assert event["job"]["facets"]["jobType"]["processingType"] == "STREAMING"
    assert event["run"]["facets"]["errorMessage"]["message"] == "the topic was made anew"
    (read,) = event["inputs"]
    assert (read["namespace"], read["name"]) == ("kafka://broker:9092", "shop.orders")
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 7
    table, letters = event["outputs"]
    assert (table["namespace"], table["name"]) == ("file", f"{tmp_path}/warehouse/shop/orders")
    assert table["outputFacets"]["outputStatistics"]["rowCount"] == 5
    assert facets_of(table)["version"] == {"datasetVersion": "8"}
    assert facets_of(table)["symlinks"]["identifiers"] == [
        {"namespace": f"file://{tmp_path}/warehouse", "name": "shop.orders", "type": "TABLE"}
    ]
    assert (letters["name"], letters["outputFacets"]["outputStatistics"]["rowCount"]) == ("shop.orders.dlq", 2)


def test_the_judge_of_events_refuses_what_is_none() -> None:
    event = told(Moment(RunState.START, AT, Counts()), facts())
    for spoil in ("eventTime", "run", "job"):
        assert refused({key: value for key, value in event.items() if key != spoil})
    assert refused(event | {"eventType": "BEGIN"})
    assert refused(event | {"surprise": 1})
    event["outputs"][0]["facets"]["schema"]["fields"] = [{"type": "long"}]
    assert refused(event)


def test_a_run_without_a_table_yet_has_no_output_and_no_error() -> None:
    event = told(Moment(RunState.START, AT, Counts()), None)
    assert not refused(event)
    assert event["outputs"] == []
    assert "errorMessage" not in event["run"]["facets"]


def test_a_table_without_a_snapshot_has_no_version() -> None:
    event = told(Moment(RunState.START, AT, Counts()), replace(facts(), snapshot_id=None))
    assert "version" not in event["outputs"][0]["facets"]


def test_a_masked_column_says_so_and_by_which_mask(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA, EMAIL)
    lake.follow(SCHEMA)
    event = told(Moment(RunState.START, AT, Counts()), facts_of(lake.table, PRODUCT, lake.catalog))
    columns = facets_of(event["outputs"][0])["columnLineage"]["fields"]
    source = {"namespace": "kafka://broker:9092", "name": "shop.orders"}
    hidden = {"type": "DIRECT", "subtype": "TRANSFORMATION", "description": "hmac-sha-256", "masking": True}
    plain = {"type": "DIRECT", "subtype": "IDENTITY", "masking": False}
    assert columns["email"]["inputFields"] == [{**source, "field": "email", "transformations": [hidden]}]
    assert columns["id"]["inputFields"] == [{**source, "field": "id", "transformations": [plain]}]
    assert columns["_kafka_offset"]["inputFields"][0]["transformations"] == [plain]
    assert "_generation" not in columns
    # Every column comes from a field that the topic's schema facet has.
    assert columns.keys() <= {field["name"] for field in facets_of(event["inputs"][0])["schema"]["fields"]}


def test_a_masked_key_is_masked_in_its_column(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA, {"id": Mask.HMAC_SHA_256})
    lake.follow(SCHEMA)
    found = facts_of(lake.table, lake.product, lake.catalog)
    assert found.masked.mask_of("_kafka_key") is Mask.REPLACE_WITH_NULL
    assert found.masked.mask_of("id") is Mask.HMAC_SHA_256


NESTED = AvroSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Order",
            "fields": [
                {"name": "id", "type": "string"},
                {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "doc": "when"},
                {
                    "name": "items",
                    "type": {
                        "type": "array",
                        "items": {
                            "type": "record",
                            "name": "Item",
                            "fields": [{"name": "price", "type": "double"}, {"name": "note", "type": "string"}],
                        },
                    },
                },
                {"name": "by", "type": {"type": "map", "values": ["null", "string"]}},
                {
                    "name": "payer",
                    "type": [
                        {"type": "record", "name": "Person", "fields": [{"name": "nick", "type": "string"}]},
                        {"type": "record", "name": "Company", "fields": [{"name": "title", "type": "string"}]},
                    ],
                },
                {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A"]}},
                {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
            ],
        }
    )
)


def test_nested_types_are_written_as_the_schema_facet_has_them(tmp_path: Path) -> None:
    def shown(fields: list[Any]) -> list[Any]:
        return [(field.name, field.type, *([shown(field.fields)] if field.fields else [])) for field in fields]

    assert shown(topic_fields(NESTED))[:7] == [
        ("id", "string"),
        ("at", "timestamp-micros"),
        ("items", "array", [("_element", "struct", [("price", "double"), ("note", "string")])]),
        ("by", "map", [("key", "string"), ("value", "string")]),
        ("payer", "struct", [("Person", "struct", [("nick", "string")]), ("Company", "struct", [("title", "string")])]),
        ("kind", "enum"),
        ("hash", "fixed"),
    ]
    lake = Lake(tmp_path, NESTED)
    found = facts_of(lake.table, lake.product, lake.catalog)
    assert shown(table_fields(found.columns))[:5] == [
        ("id", "string"),
        ("at", "timestamptz"),
        ("items", "array", [("_element", "struct", [("price", "double"), ("note", "string")])]),
        ("by", "map", [("key", "string"), ("value", "string")]),
        ("payer", "struct", [("Person", "struct", [("nick", "string")]), ("Company", "struct", [("title", "string")])]),
    ]
    assert topic_fields(NESTED)[1].description == "when"
    assert not refused(told(Moment(RunState.START, AT, Counts()), found, replace(ORIGIN, product=lake.product)))


NAMES = st.sampled_from("abc")
KINDS = st.recursive(
    st.sampled_from([StringType(), IntegerType()]),
    lambda inner: st.one_of(
        inner.map(lambda kind: ListType(element_id=0, element_type=kind, element_required=False)),
        inner.map(lambda kind: MapType(key_id=0, key_type=StringType(), value_id=0, value_type=kind)),
        st.lists(st.tuples(NAMES, inner), min_size=1, max_size=3, unique_by=lambda pair: pair[0]).map(
            lambda pairs: StructType(*(NestedField(0, name, kind) for name, kind in pairs))
        ),
    ),
    max_leaves=6,
)
COLUMNS = st.lists(st.tuples(NAMES, KINDS), min_size=1, max_size=3, unique_by=lambda pair: pair[0]).map(
    lambda pairs: [NestedField(0, name, kind) for name, kind in pairs]
)


@given(columns=COLUMNS, data=st.data(), key=st.booleans())
def test_a_column_is_masked_if_it_holds_anything_masked(
    columns: list[NestedField], data: st.DataObject, key: bool
) -> None:
    own = [*columns, NestedField(0, "_kafka_key", StringType()), NestedField(0, "_generation", IntegerType())]
    paths = set(column_paths(columns))
    chosen = data.draw(st.dictionaries(st.sampled_from(sorted(paths | {"gone"})), st.sampled_from(Mask), max_size=3))
    facet = column_lineage(own, Masked(chosen, key), namespace="kafka://b:1", topic="t", producer="p")
    assert facet.fields.keys() == paths | {"_kafka_key"}
    masked = set()
    for path, origin in facet.fields.items():
        (source,) = origin.inputFields
        how = (source.transformations or [])[0]
        assert (source.field, how.subtype) == (path, "TRANSFORMATION" if how.masking else "IDENTITY")
        if how.masking:
            masked.add(path)
    related = {
        path for path in paths for mask in chosen if path == mask or lies_in(path, {mask}) or lies_in(mask, {path})
    }
    assert masked == related | ({"_kafka_key"} if key else set())


@pytest.mark.parametrize(
    ("location", "naming"),
    [
        ("file:///data/shop/orders/", LocalFileSystem("/data/shop/orders")),
        ("/data/shop/orders", LocalFileSystem("/data/shop/orders")),
        ("s3://lake/shop/orders", S3("lake", "shop/orders")),
        ("s3a://lake/shop/orders", S3("lake", "shop/orders")),
        ("gs://lake/shop/orders", GCS("lake", "shop/orders")),
        ("abfss://box@acc.dfs.core.windows.net/shop/orders", ABFSS("box", "acc", "shop/orders")),
        ("hdfs://name:8020/shop/orders", HDFS("name", "8020", "/shop/orders")),
    ],
)
def test_a_table_is_named_by_its_place_as_the_library_names_it(location: str, naming: Any) -> None:
    assert place_of_table(location) == (naming.get_namespace(), naming.get_name())


@pytest.mark.parametrize(
    ("servers", "host", "port"),
    [
        ("broker:9093", "broker", "9093"),
        ("broker", "broker", "9092"),
        ("a.example.org:1, b:2", "a.example.org", "1"),
        ("SASL_SSL://broker:9094", "broker", "9094"),
        ("[::1]:9092", "[::1]", "9092"),
    ],
)
def test_a_topic_is_named_by_the_first_server(servers: str, host: str, port: str) -> None:
    assert kafka_namespace(servers) == Kafka(host, port, "t").get_namespace()


@pytest.mark.parametrize(
    ("properties", "home"),
    [
        ({"type": "rest", "uri": "https://ann:hush-hush@catalog/api/?token=hush-hush"}, "https://catalog/api"),
        ({"type": "sql", "uri": "postgresql://ann:hu/sh@et@db/x", "warehouse": "s3://lake"}, "s3://lake"),
    ],
)
def test_no_secret_of_a_catalog_is_told(tmp_path: Path, properties: dict[str, str], home: str) -> None:
    lake = Lake(tmp_path, SCHEMA)
    lake.catalog.properties = properties
    event = told(Moment(RunState.START, AT, Counts()), facts_of(lake.table, PRODUCT, lake.catalog))
    assert facets_of(event["outputs"][0])["symlinks"]["identifiers"][0]["namespace"] == home
    assert not re.search("hush|sh@et", json.dumps(event))
