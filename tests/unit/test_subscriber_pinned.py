"""Events of all versions read as one: symbols of enums that it does not have, masks that a later version brings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import UserError
from headrace.schemas.masks import Mask
from headrace.schemas.policy import PiiPolicy
from headrace.schemas.registry import RegisteredSchema
from headrace.streams.frames import Frame
from headrace.streams.masked import Masking
from headrace.streams.pinned import Pinned
from headrace.streams.portions import OFFSET, PARTITION, SCHEMA_ID, TIMESTAMP, Portion
from headrace.streams.versions import Versions
from headrace.streams.written import with_symbols
from tests.support.lake import product_of
from tests.support.meshes import encoded

ID = {"name": "id", "type": "string"}
POLICY = PiiPolicy(default=Mask.HMAC_SHA_256, categories={"secret": Mask.REPLACE_WITH_NULL})
TAGS = {"confluent:tags": ["PII"]}
NULL_TAGS = {"confluent:tags": ["PII", "secret"]}


def schema_of(*fields: dict[str, Any]) -> AvroSchema:
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": [ID, *fields]}))


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "Colour", "symbols": list(symbols), **more}


@dataclass
class Subject:
    """A subject's versions, numbered from 1 as they come, with ids from 101; events are read as the first."""

    versions: list[RegisteredSchema] = field(default_factory=list)

    def add(self, schema: AvroSchema) -> RegisteredSchema:
        number = len(self.versions) + 1
        self.versions.append(RegisteredSchema(100 + number, number, "shop.orders-value", schema))
        return self.versions[-1]

    def pinned(self, *, live: bool = False, masks: dict[str, Mask] | None = None) -> Pinned:
        product = product_of(self.versions[0].schema)
        known = Versions(product, list(self.versions), lambda: self.versions, lambda _: None)
        past = (masks or {}) if live or masks is not None else None
        return Pinned(product, self.versions[0], known, Masking(live, past, {}, POLICY, b"k" * 32))


def frame_of(version: RegisteredSchema, *events: dict[str, Any], first: int = 0) -> Frame:
    values = [encoded(version.schema, version.id, {"id": f"e{n}", **event}) for n, event in enumerate(events, first)]
    keys = pa.nulls(len(values), pa.binary())
    offsets = np.arange(first, first + len(values))
    return Frame(0, version.id, offsets, offsets * 1_000, keys, pa.array(values, pa.binary()))


def seen(portion: Portion, name: str) -> tuple[list[Any], list[tuple[int, str]]]:
    """Return a column's values and what is poison."""
    return portion.events.column(name).to_pylist(), [(poison.offset, poison.reason) for poison in portion.poisons]


def read(pinned: Pinned, *frames: Frame) -> Portion:
    (portion,) = pinned.portions(frames)
    return portion


def colours(*kinds: dict[str, Any]) -> Subject:
    subject = Subject()
    for kind in kinds:
        subject.add(schema_of({"name": "colour", "type": kind}))
    return subject


def rows_of(version: RegisteredSchema, name: str, values: list[Any]) -> pa.RecordBatch:
    """Return rows of the table, as `Past` reads them."""
    count = len(values)
    columns = {
        "id": pa.array([f"e{n}" for n in range(count)]),
        name: pa.array(values),
        PARTITION: pa.repeat(pa.scalar(0, pa.int32()), count),
        OFFSET: pa.array(range(count), pa.int64()),
        TIMESTAMP: pa.nulls(count, pa.timestamp("us", tz="UTC")),
        SCHEMA_ID: pa.repeat(pa.scalar(version.id, pa.int32()), count),
    }
    return pa.RecordBatch.from_pydict(columns)


def test_a_symbol_that_the_pinned_version_does_not_have_is_poison() -> None:
    subject = colours(enum("RED", "GREEN"), enum("RED", "GREEN", "BLUE"))
    newer = subject.versions[1]
    found = [{"colour": colour} for colour in ("GREEN", "BLUE", "RED", "BLUE")]
    frames = frame_of(subject.versions[0], {"colour": "RED"}), frame_of(newer, *found, first=1)
    portion = read(subject.pinned(), *frames)
    assert seen(portion, "colour") == (["RED", "GREEN", "RED"], [(2, "unknown-symbol"), (4, "unknown-symbol")])
    assert portion.events.column(OFFSET).to_pylist() == [0, 1, 3]
    # What is poison from the topic is poison from the table.
    past = subject.pinned().rows(0, rows_of(newer, "colour", ["RED", "BLUE", "GREEN"]))
    assert seen(past, "colour") == (["RED", "GREEN"], [(1, "unknown-symbol")])
    assert (past.end, past.from_history) == (3, True)


def test_the_pinned_versions_default_stands_for_a_symbol_that_it_does_not_have() -> None:
    subject = colours(enum("RED", "OTHER", default="OTHER"), enum("RED", "BLUE"))
    newer = subject.versions[1]
    portion = read(subject.pinned(), frame_of(newer, {"colour": "BLUE"}, {"colour": "RED"}))
    assert seen(portion, "colour") == (["OTHER", "RED"], [])
    past = subject.pinned().rows(0, rows_of(newer, "colour", ["BLUE", "RED"]))
    assert seen(past, "colour") == (["OTHER", "RED"], [])


def test_what_a_mask_made_of_a_symbol_in_the_table_is_no_poison() -> None:
    subject = colours(enum("RED"), enum("RED", "BLUE"))
    rows = rows_of(subject.versions[1], "colour", ["5f2c", "0a1b"])
    past = subject.pinned(masks={"colour": Mask.HMAC_SHA_256}).rows(0, rows)
    assert seen(past, "colour") == (["5f2c", "0a1b"], [])


def test_texts_are_not_read_as_an_enum() -> None:
    subject = colours(enum("RED"))
    texts = subject.add(schema_of({"name": "colour", "type": "string"}))
    portion = read(subject.pinned(), frame_of(texts, {"colour": "RED"}))
    assert portion.stop is not None
    assert "colour: it is string in them, enum here" in str(portion.stop.error)


def test_symbols_are_looked_for_at_any_depth() -> None:
    colour = enum("RED", "GREEN")
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "colour", "type": ["null", colour]}]}
    reader = schema_of(
        {"name": "list", "type": ["null", {"type": "array", "items": ["null", inner]}]},
        {"name": "map", "type": {"type": "map", "values": "Colour"}},
    )
    kind = pa.struct({"colour": pa.string()})
    events = pa.array(
        [
            {"list": [{"colour": "RED"}, None, {"colour": None}], "map": [("k", "GREEN")]},
            {"list": [{"colour": "RED"}, {"colour": "BLUE"}], "map": []},
            {"list": None, "map": [("k", "RED"), ("l", "BLUE")]},
            {"list": [], "map": []},
            None,
        ],
        pa.struct({"list": pa.list_(kind), "map": pa.map_(pa.string(), pa.string())}),
    )
    for first in (0, 1):
        same, strange = with_symbols(events.slice(first), reader.record)
        assert strange.tolist() == [False, True, True, False, False][first:]
        assert same.to_pylist() == events.slice(first).to_pylist()


@pytest.mark.parametrize("ahead", [True, False])
def test_a_version_that_comes_later_masks_what_it_tags_in_events_of_all_versions(*, ahead: bool) -> None:
    subject = Subject()
    plain = subject.add(schema_of({"name": "mail", "type": "string"}))
    pinned = subject.pinned(live=True)
    assert seen(read(pinned, frame_of(plain, {"mail": "ann@example.org"})), "mail")[0] == ["ann@example.org"]
    tagged = subject.add(schema_of({"name": "mail", "type": "string", **TAGS}))
    frames = [frame_of(tagged, {"mail": "ann@example.org"}, first=2), frame_of(plain, {"mail": "ann@example.org"})]
    found, _ = seen(read(pinned, *(frames if ahead else reversed(frames))), "mail")
    assert len(set(found)) == 1
    assert len(found[0]) == 64


def test_what_is_not_asked_for_is_not_masked() -> None:
    subject = Subject()
    subject.add(schema_of({"name": "mail", "type": "string"}))
    pinned = subject.pinned()
    tagged = subject.add(schema_of({"name": "mail", "type": "string", **NULL_TAGS}))
    assert seen(read(pinned, frame_of(tagged, {"mail": "ann@example.org"})), "mail")[0] == ["ann@example.org"]


def test_a_later_null_mask_hides_what_may_be_null_and_stops_where_it_may_not() -> None:
    subject = Subject()
    subject.add(schema_of({"name": "mail", "type": ["null", "string"]}))
    pinned = subject.pinned(live=True)
    tagged = subject.add(schema_of({"name": "mail", "type": ["null", "string"], **NULL_TAGS}))
    assert seen(read(pinned, frame_of(tagged, {"mail": "ann@example.org"})), "mail")[0] == [None]

    subject = Subject()
    subject.add(schema_of({"name": "mail", "type": "string"}))
    pinned = subject.pinned(live=True)
    tagged = subject.add(schema_of({"name": "mail", "type": "string", **NULL_TAGS}))
    for _ in range(2):
        with pytest.raises(
            UserError, match="version 2 masks a field as null that events of version 1 must have"
        ) as told:
            read(pinned, frame_of(tagged, {"mail": "ann@example.org"}))
        assert "subscribe anew" in str(told.value.hint)
        assert "ann" not in str(told.value)

    # Who reads topics unmasked reads tables as they are masked all the same.
    reading = Subject(subject.versions[:1])
    pinned = reading.pinned(masks={})
    tagged = reading.add(tagged.schema)
    assert seen(read(pinned, frame_of(tagged, {"mail": "ann@example.org"})), "mail")[0] == ["ann@example.org"]
    with pytest.raises(UserError, match="version 2 masks a field as null"):
        pinned.rows(0, rows_of(tagged, "mail", [None]))
