"""Tables that others have changed, registries that have lost versions: no value is lost and nothing crashes unsaid."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.types import StringType

from headrace.schemas.errors import ProductStopped, Unavailable
from headrace.schemas.product import PartitionField
from headrace.schemas.registered import RegisteredSchema
from headrace.schemas.table_layout import layout_change
from headrace.sinks.evolution import followed_version
from headrace.streams.frames import Frame
from tests.support.meshes import encoded
from tests.support.mixed import Sink, field, record, schema_of

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.registry import Registry

DAY = {"type": "long", "logicalType": "timestamp-micros"}


def partitioned(folder: Path, schema: AvroSchema, path: str, transform: str) -> Sink:
    """Return the sink of a table that is partitioned by a field."""
    sink = Sink(folder, schema)
    contract = replace(sink.product.contract, partition_by=(PartitionField(path, transform),))
    sink.product = sink.lake.product = replace(sink.product, contract=contract)
    change = layout_change(contract, sink.lake.table.schema(), sink.lake.table.metadata)
    sink.lake.catalog.commit_table(sink.lake.table, change.requirements, change.updates)
    sink.start()
    return sink


def test_a_partition_field_may_be_renamed_widened_removed_and_come_back(tmp_path: Path) -> None:
    sink = partitioned(tmp_path, schema_of(field("n", "int")), "n", "identity")
    sink.land(1, {"id": 1, "n": 1})
    sink.shelf.add(schema_of(field("count", "long", aliases=["n"])))
    sink.land_all([(2, {"id": 2, "count": 2**40}), (1, {"id": 3, "n": -1})])
    sink.shelf.add(schema_of())
    sink.land(3, {"id": 4})
    sink.shelf.add(schema_of(field("count", ["null", "long"])))
    sink.land(4, {"id": 5, "count": 7})
    assert [row["count"] for row in sink.rows()] == [1, 2**40, -1, None, 7]
    assert sink.lake.count("count = 7") == 1


@pytest.mark.parametrize(
    ("first", "later", "transform", "name"),
    [
        (field("at", DAY), [field("at", DAY), field("at_day", "string", default="")], "day", "at_day"),
        (field("at", "int"), [field("to", "int", aliases=["at"])], "identity", "at"),
    ],
    ids=["a transform's name", "an identity's, which was renamed"],
)
def test_a_version_with_a_partitions_name_stops_the_product_and_says_what_to_do(
    tmp_path: Path, first: dict[str, Any], later: list[dict[str, Any]], transform: str, name: str
) -> None:
    sink = partitioned(tmp_path, schema_of(first), "at", transform)
    sink.shelf.add(schema_of(*later))
    if name == "at":
        sink.shelf.add(schema_of(field("to", "int"), field("at", ["null", "string"])))
    newest = max(sink.shelf.held)
    with pytest.raises(ProductStopped, match=f"follow version {newest} .* {name}: a partition of the table") as caught:
        sink.decoding.chunk(sink.frame(0, 1, {"id": 1, "at": 1}))
    assert caught.value.hint is not None
    assert "give the field another name" in caught.value.hint
    # What it says helps.
    del sink.shelf.held[newest]
    sink.shelf.held[newest + 1] = schema_of(*later[:1], field("other", ["null", "string"]))
    sink.start()
    sink.land(1, {"id": 1, "at": 1})
    assert followed_version(sink.lake.reload()) == newest + 1
    assert [row["other"] for row in sink.rows()] == [None]


def test_identifier_fields_of_another_engine_stop_the_product_and_are_named(tmp_path: Path) -> None:
    sink = Sink(tmp_path, schema_of(field("a", "string")))
    sink.land(1, {"id": 1, "a": "x"})
    with sink.lake.reload().update_schema() as update:
        update.set_identifier_fields("a")
    sink.shelf.add(schema_of())
    with pytest.raises(ProductStopped, match="Iceberg refuses") as caught:
        sink.land(2, {"id": 2})
    assert "has made a identifier fields" in str(caught.value.hint)
    with sink.lake.reload().update_schema() as update:
        update.set_identifier_fields()
    sink.land(2, {"id": 2})
    assert [row["a"] for row in sink.rows()] == ["x", None]


def test_numbers_that_a_registry_gives_again_lose_no_field(tmp_path: Path) -> None:
    """It lost three versions that the table had followed, so the next that it registers has the number 2."""
    one, two = schema_of(field("a", "string")), schema_of(field("a", "string"), field("b", "int", default=1))
    sink = Sink(tmp_path, one, two, two)
    sink.land(3, {"id": 1, "a": "x", "b": 5})
    sink.shelf.held = {1: two, 2: schema_of(field("a", "string"), field("new", "string", default=""))}
    sink.start()
    sink.land(2, {"id": 2, "a": "x", "new": "kept"})
    assert [row["new"] for row in sink.rows()] == [None, "kept"]
    assert followed_version(sink.lake.reload()) == 3
    places = {sink.lake.table.metadata_location}
    sink.start()
    sink.decoding.chunk(sink.frame(9, 1, {"id": 1, "a": "x", "b": 5}))
    assert sink.lake.reload().metadata_location in places


class Anew:
    """A registry in which the subject was deleted and made anew: version 1 has another id and other fields."""

    def __init__(self, schema: AvroSchema) -> None:
        self._schema = schema

    def all_versions(self, subject: str) -> tuple[RegisteredSchema, ...]:
        """Return the only version."""
        return (RegisteredSchema(901, 1, subject, self._schema),)

    def schema(self, schema_id: int) -> None:
        """Know all ids: none is the subject's."""


def test_a_subject_that_is_made_anew_while_the_sink_runs_puts_no_value_into_another_column(tmp_path: Path) -> None:
    sink = Sink(tmp_path, schema_of(field("mail", "string")))
    sink.land(1, {"id": 1, "mail": "ann@example.org"})
    before = sink.decoding.chunk(sink.frame(1, 1, {"id": 2, "mail": "ann@example.org"}))
    other = schema_of(field("mail", "int"))
    sink.decoding._registry = cast("Registry", Anew(other))
    values = pa.array([encoded(other, 901, {"id": 3, "mail": 7})], pa.binary())
    sink.decoding.chunk(Frame(0, 901, np.array([2]), np.array([0]), pa.array([b"k"]), values))
    shape = sink.decoding.shape(sink.lake.reload())
    with pytest.raises(ProductStopped, match="the registry has lost"):
        shape.rows(sink.lake.table, [before], 1)
    (letter,) = sink.decoding.chunk(sink.frame(3, 1, {"id": 4, "mail": "ann@example.org"})).letters
    assert letter.reason == "foreign-schema"


PLACES = [("r",), ("o", "r"), ("items", "element", "r"), ("m", "value", "r")]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_columns_that_others_renamed_or_added_required_stop_the_product_and_are_named(
    tmp_path: Path, place: tuple[str, ...]
) -> None:
    shared, by_name = {"type": "array", "items": "O"}, {"type": "map", "values": "O"}
    fields = [field("o", record("O", field("k", "string"))), field("items", shared), field("m", by_name)]
    sink = Sink(tmp_path, schema_of(field("k", "string"), *fields))
    inner = {"k": "secret"}
    event = {"id": 1, **inner, "o": inner, "items": [inner], "m": {"x": inner}}
    sink.land(1, event)
    with sink.lake.reload().update_schema() as update:
        update.rename_column((*place[:-1], "k"), "kk")
    with pytest.raises(ProductStopped, match=r"101 have \S*k, which the table calls otherwise") as renamed:
        sink.land(1, event)
    with sink.lake.reload().update_schema(allow_incompatible_changes=True) as update:
        update.rename_column((*place[:-1], "kk"), "k")
        update.add_column(place, StringType(), required=True)
    with pytest.raises(ProductStopped, match=f"lack values for {place[0]}, which is never null") as added:
        sink.land(1, event)
    assert not [error for error in (renamed, added) if "secret" in f"{error.value} {error.value.hint}"]
    with sink.lake.reload().update_schema() as update:
        update.make_column_optional(place)
    sink.land(1, event)
    assert len(sink.rows()) == 2


def test_a_sink_whose_registry_lags_behind_puts_no_value_into_a_column_that_took_the_name(tmp_path: Path) -> None:
    versions = [
        schema_of(field("mail", "string")),
        schema_of(field("email", "string", aliases=["mail"])),
        schema_of(field("email", "string"), field("mail", ["null", "string"])),
    ]
    late, early = Sink(tmp_path, versions[0]), Sink(tmp_path, *versions)
    early.lake = late.lake
    early.start()
    late.land(1, {"id": 1, "mail": "a"})
    early.land(3, {"id": 2, "email": "b", "mail": "c"})
    chunk = late.decoding.chunk(late.frame(2, 1, {"id": 3, "mail": "d"}))
    for _ in range(2):
        with pytest.raises(Unavailable, match="followed version 3, which the registry does not know, and renamed mail"):
            late.decoding.shape(late.lake.reload()).rows(late.lake.table, [chunk], 1)
    late.shelf.held = early.shelf.held
    rows = late.decoding.shape(late.lake.reload()).rows(late.lake.table, [chunk], 1)
    assert rows.select(["email", "mail"]).to_pylist() == [{"email": "d", "mail": None}]


def test_events_from_before_a_rename_that_the_registry_has_lost_are_not_written_without_their_values(
    tmp_path: Path,
) -> None:
    mail, email = field("mail", ["null", "string"]), field("email", ["null", "string"])
    sink = Sink(tmp_path, schema_of(mail), schema_of({**email, "aliases": ["mail"]}), schema_of(email))
    sink.land_all([(1, {"id": 1, "mail": "a"}), (3, {"id": 2, "email": "b"})])
    del sink.shelf.held[2]
    sink.start()
    with pytest.raises(ProductStopped, match="schema id 101 have mail, which the table calls otherwise now"):
        sink.land(1, {"id": 3, "mail": "c"})
    # Those of others go on.
    sink.start()
    sink.land(3, {"id": 4, "email": "d"})
    assert [row["email"] for row in sink.rows()] == ["a", "b", "d"]


def test_a_column_that_took_a_name_and_was_dropped_by_an_operator_stops_nothing(tmp_path: Path) -> None:
    versions = [
        schema_of(field("mail", "string")),
        schema_of(field("email", "string", aliases=["mail"])),
        schema_of(field("email", "string"), field("mail", ["null", "string"])),
    ]
    sink = Sink(tmp_path, *versions)
    sink.land(1, {"id": 1, "mail": "a"})
    with sink.lake.reload().update_schema() as update:
        update.delete_column("mail")
    sink.land_all([(1, {"id": 2, "mail": "b"}), (3, {"id": 3, "email": "c", "mail": "x"})])
    assert sink.rows() == [{"id": 1, "email": "a"}, {"id": 2, "email": "b"}, {"id": 3, "email": "c"}]
