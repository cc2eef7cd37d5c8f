"""What differs between files and servers, as tables: what the files want, what is there, what apply does about it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import NestedField, StringType

from headrace.schemas.avro import AvroSchema
from headrace.schemas.environment import Environment, EnvironmentSettings
from headrace.schemas.masks import Mask
from headrace.schemas.policy import PiiPolicy
from headrace.schemas.product import Compatibility, Domain, PartitionField, RefusedVersions, SortField
from headrace.schemas.registered import RegisteredSchema, UnreadableSchema
from headrace.selfserve.apply import Applied
from headrace.selfserve.drift import next_step
from headrace.selfserve.resources.difference import SYMBOLS, Difference, Kind
from headrace.selfserve.resources.namespace import Namespace, lies_in, same_place
from headrace.selfserve.resources.subject import NO_ID, Subject, SubjectThere
from headrace.selfserve.resources.table import LOCATION_PROPERTY, Table, TableThere
from headrace.selfserve.resources.topic import DEAD_LETTER_RETENTION_MS, DeadLetters, LettersThere, Topic, TopicThere
from headrace.sinks.hold import Hold
from headrace.sinks.tables import table_properties, table_schema
from headrace.streams.versions import VERSION_PROPERTY
from tests.support.lake import product_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


HOLD = Hold("it is compacted", datetime(2026, 11, 23, tzinfo=UTC))
POLICY = PiiPolicy(default=Mask.REPLACE_WITH_NULL)
DOMAIN = Domain("shop", "team", "", "shop", {})
DAY_MS = 86_400_000


def brief(differences: Iterable[Difference]) -> list[tuple[str, str]]:
    return [
        (str(each.kind), f"{each.what} {each.old} → {each.new}" if each.what else each.cause) for each in differences
    ]


def schema_of(*fields: Any) -> AvroSchema:
    members = [each if isinstance(each, dict) else {"name": each[0], "type": each[1]} for each in fields]
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Order", "fields": members}))


ONE = schema_of(("id", "string"), ("n", "int"))
TWO = schema_of(("id", "string"), ("n", "int"), {"name": "gate", "type": ["null", "string"], "default": None})
WRONG = schema_of(("id", "string"), ("n", "string"))
ORDERS = product_of(ONE)


# --- topics ---


def topic(**config: str) -> Topic:
    return Topic("shop.orders", 2, {name.replace("_", "."): value for name, value in config.items()}, "shop.orders")


def there(partitions: int = 2, replicas: int = 3, **config: str) -> TopicThere:
    return TopicThere(partitions, replicas, {name.replace("_", "."): value for name, value in config.items()})


@pytest.mark.parametrize(
    ("wanted", "found", "differences"),
    [
        (topic(), None, [("create", "topic-missing")]),
        (topic(), there(segment_bytes="7"), []),
        (topic(retention_ms="7"), there(retention_ms="7"), []),
        (topic(retention_ms="8"), there(retention_ms="7"), [("change", "retention.ms 7 → 8")]),
        (topic(retention_ms="6"), there(retention_ms="7"), [("destroy", "retention.ms 7 → 6")]),
        # -1 is for ever.
        (topic(retention_ms="-1"), there(retention_ms="7"), [("change", "retention.ms 7 → -1")]),
        (topic(retention_ms="7"), there(retention_ms="-1"), [("destroy", "retention.ms -1 → 7")]),
        (topic(cleanup_policy="compact,delete"), there(cleanup_policy="delete,compact"), []),
        (
            topic(cleanup_policy="compact"),
            there(cleanup_policy="delete"),
            [("destroy", "cleanup.policy delete → compact")],
        ),
        (
            topic(cleanup_policy="delete"),
            there(cleanup_policy="compact"),
            [("destroy", "cleanup.policy compact → delete")],
        ),
        (
            topic(cleanup_policy="delete"),
            there(cleanup_policy="compact,delete"),
            [("change", "cleanup.policy compact,delete → delete")],
        ),
        (topic(min_insync_replicas="2"), there(min_insync_replicas="1"), [("change", "min.insync.replicas 1 → 2")]),
        (
            topic(min_insync_replicas="2"),
            there(replicas=1, min_insync_replicas="1"),
            [("warning", "min.insync.replicas None → None")],
        ),
        (topic(), there(partitions=1), [("never", "partitions 1 → 2")]),
        (topic(), there(partitions=3), [("never", "partitions 3 → 2")]),
    ],
)
def test_topics(wanted: Topic, found: TopicThere | None, differences: list[tuple[str, str]]) -> None:
    assert brief(wanted.diff(found)) == differences


def test_a_topic_that_holds_no_events_of_a_product_loses_none() -> None:
    letters = replace(topic(retention_ms="6"), product="")
    assert brief(letters.diff(there(retention_ms="7"))) == [("change", "retention.ms 7 → 6")]


def test_what_is_lost_says_for_whom_it_is_allowed() -> None:
    (lost,) = topic(retention_ms="6").diff(there(retention_ms="7"))
    assert "--allow-destroy shop.orders" in lost.next


def test_a_products_topic_wants_what_its_contract_says() -> None:
    contract = replace(ORDERS.contract, retention_ms=DAY_MS, cleanup_policy="compact,delete", min_insync_replicas=2)
    assert Topic.of(replace(ORDERS, contract=contract)).config == {
        "retention.ms": str(DAY_MS),
        "cleanup.policy": "compact,delete",
        "min.insync.replicas": "2",
    }
    assert Topic.of(ORDERS).config == {"cleanup.policy": "delete"}


@pytest.mark.parametrize(
    ("found", "source_bytes", "differences"),
    [
        (None, None, [("create", "dead-letters-missing")]),
        (there(1, retention_ms=str(DEAD_LETTER_RETENTION_MS), max_message_bytes="5"), None, []),
        (
            there(1, retention_ms=str(DEAD_LETTER_RETENTION_MS), max_message_bytes="5"),
            1000,
            [("change", "max.message.bytes 5 → 17384")],
        ),
        # Kept for longer, larger, in more partitions: nobody's letters are deleted for that.
        (there(3, retention_ms="-1", max_message_bytes="17385"), 1000, []),
        (
            there(1, retention_ms="60000", max_message_bytes="17384"),
            1000,
            [("change", f"retention.ms 60000 → {DEAD_LETTER_RETENTION_MS}")],
        ),
    ],
)
def test_dead_letters(found: TopicThere | None, source_bytes: int | None, differences: list[tuple[str, str]]) -> None:
    assert brief(DeadLetters.of(ORDERS).diff(LettersThere(found, source_bytes))) == differences


@pytest.mark.parametrize(
    ("wanted", "own", "unsaid"),
    [
        (topic(), {"retention.ms", "segment.bytes"}, ["retention.ms 7 → None"]),
        (topic(retention_ms="7"), {"retention.ms"}, []),
        (topic(), set(), []),
    ],
)
def test_settings_that_somebody_has_set_and_no_contract_speaks_of(
    wanted: Topic, own: set[str], unsaid: list[str]
) -> None:
    found = replace(there(retention_ms="7"), own=frozenset(own))
    assert [text for _, text in brief(wanted.unsaid(found))] == unsaid
    assert wanted.unsaid(None) == ()


# --- namespaces ---


@pytest.mark.parametrize(
    ("location", "found", "differences"),
    [
        ("s3://a/shop", None, [("create", "namespace-missing")]),
        (None, {"location": "s3://anywhere"}, []),
        ("s3://a/shop", {}, []),
        ("s3://a/shop", {"location": "s3a://a/shop/"}, []),
        ("s3://a/shop", {"location": "s3://b/shop"}, [("never", "location s3://b/shop → s3://a/shop")]),
    ],
)
def test_namespaces(location: str | None, found: Mapping[str, str] | None, differences: list[tuple[str, str]]) -> None:
    assert brief(Namespace(DOMAIN, location).diff(found)) == differences


def test_a_namespace_lies_in_the_warehouse_if_that_is_a_place() -> None:
    def of(warehouse: str) -> str | None:
        catalog: dict[str, bool | int | float | str] = {"type": "rest", "uri": "http://x", "warehouse": warehouse}
        kafka: dict[str, bool | int | float | str] = {"bootstrap.servers": "x:1"}
        settings = EnvironmentSettings(kafka=kafka, registry={"url": "http://x"}, catalog=catalog)
        return Namespace.of(Environment("e", Path(), settings), DOMAIN).location

    assert of("s3://bucket/{storage}/") == "s3://bucket/shop/shop"
    assert of("polaris_{domain}") is None


@pytest.mark.parametrize(
    ("one", "other", "same", "inside"),
    [
        ("file:///a/b", "file:/a/b/", True, True),
        ("s3a://a/b", "s3://a/b", True, True),
        ("s3://a/b/c", "s3://a/b", False, True),
        ("s3://a/bc", "s3://a/b", False, False),
        ("gs://a/b", "s3://a/b", False, False),
    ],
)
def test_places(one: str, other: str, same: bool, inside: bool) -> None:
    assert same_place(one, other) is same
    assert lies_in(one, other) is inside


# --- subjects ---


def versions(*schemas: AvroSchema) -> tuple[RegisteredSchema, ...]:
    return tuple(RegisteredSchema(40 + n, n, ORDERS.subject, schema) for n, schema in enumerate(schemas, 1))


def subject_there(*schemas: AvroSchema, found: int | None = None, **more: Any) -> SubjectThere:
    known = versions(*schemas)
    given: dict[str, Any] = {
        "own_level": "BACKWARD",
        "level": "BACKWARD",
        "versions": known,
        "live": frozenset(version.version for version in known),
        "found": known[found - 1] if found else None,
    }
    return SubjectThere(**(given | more))


def subject(schema: AvroSchema, **contract: Any) -> Subject:
    return Subject(DOMAIN, replace(ORDERS, schema=schema, contract=replace(ORDERS.contract, **contract)), POLICY)


@pytest.mark.parametrize(
    ("wanted", "found", "differences"),
    [
        (
            subject(ONE),
            subject_there(own_level=None),
            [("change", "level None → BACKWARD"), ("create", "schema None → version 1")],
        ),
        (subject(ONE), subject_there(ONE, found=1), []),
        (subject(ONE), subject_there(ONE, found=1, own_level="NONE"), [("change", "level NONE → BACKWARD")]),
        # An equal level of the registry's own may be changed by somebody else.
        (subject(ONE), subject_there(ONE, found=1, own_level=None), [("change", "level None → BACKWARD")]),
        (subject(TWO), subject_there(ONE), [("create", "schema version 1 → version 2")]),
        (subject(WRONG), subject_there(ONE), [("refused", "schema version 1 → version 2")]),
        # The registry would take it; no table could follow it.
        (
            subject(WRONG, compatibility=Compatibility.NONE),
            subject_there(ONE, own_level="NONE"),
            [("refused", "schema version 1 → version 2")],
        ),
        (subject(TWO), subject_there(ONE, hold=HOLD), [("held", "held")]),
        (subject(ONE), subject_there(ONE, found=1, hold=HOLD), []),
    ],
)
def test_subjects(wanted: Subject, found: SubjectThere, differences: list[tuple[str, str]]) -> None:
    assert brief(wanted.diff(found)) == differences


def test_a_schema_is_compared_with_what_is_not_deleted() -> None:
    must = schema_of(("id", "string"), ("n", "int"), ("must", "string"))
    assert [each.kind for each in subject(must).diff(subject_there(ONE))] == [Kind.REFUSED]
    assert [each.kind for each in subject(must).diff(subject_there(ONE, live=frozenset()))] == [Kind.CREATE]


def test_what_speaks_against_a_schema_is_said() -> None:
    (refused,) = subject(WRONG).diff(subject_there(ONE))
    assert any(detail.startswith("TYPE_MISMATCH n: ") for detail in refused.details)
    assert any(detail.startswith("UNSUPPORTED_TYPE_CHANGE n: ") for detail in refused.details)


def test_a_lost_tag_is_a_warning() -> None:
    tagged = schema_of(("id", "string"), {"name": "n", "type": "int", "confluent:tags": ["PII"]})
    created, *warnings = subject(ONE).diff(subject_there(tagged))
    assert created.kind is Kind.CREATE
    assert [each.kind for each in warnings] == [Kind.WARNING] * len(warnings)
    assert any("n" in each.why for each in warnings)


@pytest.mark.parametrize(
    ("wanted", "found", "planned"),
    [
        (subject(TWO), subject_there(ONE), 2),
        (subject(ONE), subject_there(ONE, found=1), None),
        (subject(WRONG), subject_there(ONE), None),
        (subject(TWO), subject_there(ONE, hold=HOLD), None),
    ],
)
def test_a_version_is_planned_only_if_it_will_be_registered(
    wanted: Subject, found: SubjectThere, planned: int | None
) -> None:
    version = wanted.planned(found)
    assert (version.version if version else None) == planned
    assert version is None or version.id == NO_ID


# --- tables ---


def table_there(*schemas: AvroSchema, **more: Any) -> TableThere:
    """Return a table that has followed one schema, while these are registered, the last of them the contract's."""
    known = versions(*schemas)
    columns = more.pop("columns", None) or table_schema(schemas[0], {})
    properties = {
        **table_properties(more.pop("contract_of", ORDERS.contract)),
        VERSION_PROPERTY: "1",
        f"headrace.applied.{known[-1].id}": "1.0.0",
        LOCATION_PROPERTY: "s3://a/shop/orders",
        **more.pop("properties", {}),
    }
    metadata = new_table_metadata(
        columns,
        UNPARTITIONED_PARTITION_SPEC,
        UNSORTED_SORT_ORDER,
        more.pop("location", "s3://a/shop/orders"),
        {name: value for name, value in properties.items() if value is not None and name != "format-version"},
    )
    given: dict[str, Any] = {
        "metadata": metadata,
        "schema": metadata.schema(),
        "hold": None,
        "known": {},
        "versions": known,
        "live": frozenset(version.version for version in known),
        "contract": known[-1],
        "base": "s3://a/shop",
    }
    return TableThere(**(given | more))


def table(schema: AvroSchema = ONE, **contract: Any) -> Table:
    return Table(subject(schema, **contract), Namespace(DOMAIN, "s3://a/shop"))


NO_TABLE: dict[str, Any] = {"metadata": None, "schema": None}
UNREADABLE = UnreadableSchema(50, 2, ORDERS.subject, "this is a JSON schema", "events are Avro")


@pytest.mark.parametrize(
    ("wanted", "found", "differences"),
    [
        (table(), table_there(ONE), []),
        (table(), table_there(ONE, **NO_TABLE), [("create", "table-missing")]),
        # Before its schema may be registered there can be no table.
        (table(), table_there(ONE, **NO_TABLE, versions=(), contract=None), []),
        (table(TWO), table_there(ONE, TWO), [("change", "version 1 → 2")]),
        (table(TWO), table_there(ONE, TWO, hold=HOLD), [("held", "held")]),
        (table(), table_there(ONE, hold=HOLD), []),
        (
            table(),
            table_there(ONE, properties={"headrace.applied.41": None}),
            [("change", "mark None → version 1 as applied")],
        ),
        (table(purpose="new"), table_there(ONE), [("change", "comment orders → new")]),
        (table(table_properties={"a": "b"}), table_there(ONE), [("change", "a None → b")]),
        # What headrace needs for its commits is no contract's to change.
        (table(table_properties={"write.metadata.previous-versions-max": "1"}), table_there(ONE), []),
        (table(), table_there(ONE, properties={"theirs": "x"}), []),
        (
            table(partition_by=(PartitionField("_kafka_timestamp", "day"),)),
            table_there(ONE),
            [("change", "partitions none → day(_kafka_timestamp)")],
        ),
        (table(sort_by=(SortField("n"),)), table_there(ONE), [("change", "sort order none → n asc nulls first")]),
        # By a column that the table will have once it has followed the version.
        (
            table(TWO, sort_by=(SortField("gate"),)),
            table_there(ONE, TWO),
            [("change", "version 1 → 2"), ("change", "sort order none → gate asc nulls first")],
        ),
        (
            table(schema_of(("id", "string"), {"name": "n", "type": "int", "doc": "how many"})),
            table_there(ONE),
            [("change", "doc of column n None → how many")],
        ),
        (table(WRONG), table_there(ONE, WRONG, contract=None), [("refused", "version 2 None → None")]),
        (
            table(refused_versions=RefusedVersions.DEAD_LETTER),
            table_there(ONE, WRONG, contract=None),
            [("warning", "version 2 None → None")],
        ),
        # Deleted, it is nobody's concern any more.
        (table(), table_there(ONE, WRONG, contract=None, live=frozenset({1})), []),
        (
            table(),
            table_there(ONE, versions=(*versions(ONE), UNREADABLE), live=frozenset({1, 2})),
            [("refused", "version 2 None → None")],
        ),
        (
            table(),
            table_there(ONE, location="s3://a/shop/orders2"),
            [("never", "location s3://a/shop/orders2 → s3://a/shop/orders")],
        ),
        (
            table(),
            table_there(ONE, base="s3://b/shop"),
            [("never", "location s3://a/shop/orders → s3://b/shop")],
        ),
        (table(), table_there(ONE, base=None), []),
        (
            table(),
            table_there(ONE, properties={LOCATION_PROPERTY: None}),
            [("change", f"{LOCATION_PROPERTY} None → s3://a/shop/orders")],
        ),
    ],
)
def test_tables(wanted: Table, found: TableThere, differences: list[tuple[str, str]]) -> None:
    assert brief(wanted.diff(found)) == differences


def test_a_version_that_is_registered_and_not_followed_is_pending() -> None:
    (pending,) = table(TWO).diff(table_there(ONE, TWO))
    assert pending.why.startswith("pending")
    assert pending.details == ("add gate string optional",)
    planned = replace(versions(ONE, TWO)[1], id=NO_ID)
    (new,) = table(TWO).diff(table_there(ONE, TWO, versions=(*versions(ONE), planned), contract=planned))
    assert new.why == ""


def test_a_new_table_is_described() -> None:
    wanted = table(partition_by=(PartitionField("id", "bucket[4]"),), sort_by=(SortField("n", descending=True),))
    (made,) = wanted.diff(table_there(ONE, **NO_TABLE))
    assert made.details == ("columns id, n", "partitioned by bucket[4](id)", "sorted by n desc nulls first")


def test_a_table_whose_column_somebody_has_changed_has_no_room() -> None:
    own = table_schema(ONE, {}).fields
    other = Schema(own[0], NestedField(2, "n", StringType(), required=False), *own[2:])
    (stuck,) = table(TWO).diff(table_there(ONE, TWO, columns=other))
    assert (stuck.kind, stuck.cause) == (Kind.REFUSED, "version-stuck")
    assert stuck.details


def test_a_tag_that_comes_later_is_a_mask_that_the_table_does_not_know() -> None:
    tagged = schema_of(("id", "string"), {"name": "n", "type": "int", "confluent:tags": ["PII"]})
    (pending,) = table(tagged).diff(table_there(ONE, tagged))
    assert "mask n by replace-with-null" in pending.details
    assert "make_optional n" in pending.details


# --- how they are told ---


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (Difference(Kind.CREATE, "c", "topic a.b"), "topic a.b"),
        (Difference(Kind.DESTROY, "c", "topic a.b"), "topic a.b (deleted)"),
        (Difference(Kind.CHANGE, "c", "topic a.b", "x", "1", "2"), "topic a.b: x 1 → 2"),
        (Difference(Kind.CHANGE, "c", "topic a.b", "x", None, "2"), "topic a.b: x 2"),
        (Difference(Kind.CHANGE, "c", "topic a.b", "x", "1"), "topic a.b: x 1 → nothing"),
        (Difference(Kind.CHANGE, "c", "topic a.b", "x"), "topic a.b: x"),
    ],
)
def test_in_words(difference: Difference, text: str) -> None:
    assert str(difference) == text


def test_every_kind_has_a_symbol_and_every_difference_a_next_step() -> None:
    assert set(SYMBOLS) == set(Kind)
    assert next_step(Difference(Kind.CHANGE, "topic-setting", "topic a.b", "x")) == "headrace apply"
    assert next_step(Difference(Kind.NEVER, "c", "t", next="do it")) == "do it"


def test_what_was_not_done_is_a_warning() -> None:
    undone = (
        ("a.b", Difference(Kind.HELD, "held", "product a.b", why="held: x", next="headrace release a.b")),
        ("a.b", Difference(Kind.NEVER, "c", "topic a.b", "x", "1", "2", "it harms", "leave it")),
        ("a.b", Difference(Kind.WARNING, "c", "topic a.b", "x", why="so it is")),
    )
    applied = Applied((), 0, undone)
    assert applied.held == ("a.b",)
    assert applied.warnings == (
        "a.b was not changed because it is held: x; headrace release a.b",
        "topic a.b: x 1 → 2: not done, because it harms; leave it",
        "topic a.b: x: so it is",
    )
