"""Events of all versions read as one: symbols of enums that it does not have, masks that a later version brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.schemas.errors import UserError
from headrace.schemas.masks import Mask
from headrace.schemas.registered import UnreadableSchema
from headrace.streams.frames import Frame
from headrace.streams.masked import Masking
from headrace.streams.pinned import Pinned
from headrace.streams.portions import OFFSET, PARTITION, SCHEMA_ID, TIMESTAMP, Portion
from headrace.streams.symbols import with_symbols
from headrace.streams.versions import Versions
from tests.support.lake import product_of
from tests.support.versions import POLICY, MemoryTable, Subject, frame_of, schema_of

if TYPE_CHECKING:
    from headrace.schemas.registered import RegisteredSchema

TAGS = {"confluent:tags": ["PII"]}
NULL_TAGS = {"confluent:tags": ["PII", "secret"]}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "Colour", "symbols": list(symbols), **more}


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
    past = subject.pinned().rows(0, rows_of(newer, "colour", ["RED", "BLUE", "GREEN"]), 2)
    assert seen(past, "colour") == (["RED", "GREEN"], [(1, "unknown-symbol")])
    assert (past.end, past.from_history) == (3, True)


def test_the_pinned_versions_default_stands_for_a_symbol_that_it_does_not_have() -> None:
    subject = colours(enum("RED", "OTHER", default="OTHER"), enum("RED", "BLUE"))
    newer = subject.versions[1]
    portion = read(subject.pinned(), frame_of(newer, {"colour": "BLUE"}, {"colour": "RED"}))
    assert seen(portion, "colour") == (["OTHER", "RED"], [])
    past = subject.pinned().rows(0, rows_of(newer, "colour", ["BLUE", "RED"]), 2)
    assert seen(past, "colour") == (["OTHER", "RED"], [])


def test_what_a_mask_made_of_a_symbol_in_the_table_is_no_poison() -> None:
    subject = colours(enum("RED"), enum("RED", "BLUE"))
    rows = rows_of(subject.versions[1], "colour", ["5f2c", "0a1b"])
    past = subject.pinned(masks={"colour": Mask.HMAC_SHA_256}).rows(0, rows, 2)
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
        pinned.rows(0, rows_of(tagged, "mail", [None]), 2)


EMAIL = {"name": "email", "type": "string", "aliases": ["mail"]}
SECRET = "ann@example.org"


def renamed(*, tagged: int) -> Subject:
    """A field of two names and a third field that takes the first name; one version tags what it has first."""
    versions: list[list[dict[str, Any]]] = [
        [{"name": "mail", "type": "string"}],
        [EMAIL],
        [{"name": "email", "type": "string"}, {"name": "mail", "type": "string", "default": "-"}],
    ]
    versions[tagged - 1][0] |= TAGS
    subject = Subject()
    for fields in versions:
        subject.add(schema_of(*fields))
    return subject


@pytest.mark.parametrize("tagged", [1, 2, 3])
@pytest.mark.parametrize("pinned", [1, 2, 3])
def test_a_mask_is_put_on_the_field_and_not_on_the_name(tagged: int, pinned: int) -> None:
    subject = renamed(tagged=tagged)
    first, second, third = subject.versions
    reader = subject.pinned(pinned, live=True)
    frames = [
        frame_of(first, {"mail": SECRET}),
        frame_of(second, {"email": SECRET}, first=1),
        frame_of(third, {"email": SECRET, "mail": "open"}, first=2),
    ]
    portion = read(reader, *frames)
    found, poisons = seen(portion, "mail" if pinned == 1 else "email")
    assert poisons == []
    assert {len(each) for each in found} == {64}
    assert len(set(found)) == 1
    if pinned == 3:
        assert seen(portion, "mail")[0] == ["-", "-", "open"]


def test_a_version_that_comes_later_masks_what_it_has_under_another_name() -> None:
    subject = Subject()
    plain = subject.add(schema_of({"name": "mail", "type": "string"}))
    pinned = subject.pinned(live=True)
    assert seen(read(pinned, frame_of(plain, {"mail": SECRET})), "mail")[0] == [SECRET]
    tagged = subject.add(schema_of({**EMAIL, **TAGS}))
    portion = read(pinned, frame_of(tagged, {"email": SECRET}, first=1), frame_of(plain, {"mail": SECRET}))
    found, _ = seen(portion, "mail")
    assert len(set(found)) == 1
    assert len(found[0]) == 64


def test_what_a_table_notes_under_a_name_of_old_is_masked_under_the_new_one() -> None:
    """The registry has lost the tag; the table has not."""
    subject = Subject()
    subject.add(schema_of({"name": "mail", "type": "string"}))
    newer = subject.add(schema_of(EMAIL))
    for noted in ("mail", "email"):
        pinned = subject.pinned(2, live=True, masks={noted: Mask.HMAC_SHA_256})
        (found,), _ = seen(read(pinned, frame_of(newer, {"email": SECRET})), "email")
        assert len(found) == 64
        assert subject.pinned(2, live=True, masks={noted: Mask.REPLACE_WITH_NULL}).nulled == {"email"}


def test_symbols_that_are_masked_in_the_table_are_no_poison_under_another_name() -> None:
    subject = Subject()
    subject.add(schema_of({"name": "colour", "type": enum("RED")}))
    newer = subject.add(schema_of({"name": "color", "type": enum("RED", "BLUE"), "aliases": ["colour"]}))
    past = subject.pinned(masks={"color": Mask.HMAC_SHA_256}).rows(0, rows_of(newer, "color", ["5f2c", "0a1b"]), 2)
    assert seen(past, "colour") == (["5f2c", "0a1b"], [])


def lost(subject: Subject, version: RegisteredSchema, rows: list[dict[str, Any]], held: int) -> pa.RecordBatch:
    """Return rows of events of a version, which the registry then loses."""
    table = MemoryTable(subject.versions)
    table.add(frame_of(version, *rows), version, held)
    columns = subject.pinned(1).relations.columns(held)
    subject.versions.remove(version)
    return table.rows(columns, held)


def test_rows_of_a_version_that_the_registry_has_lost_are_read_as_what_their_columns_are() -> None:
    subject = Subject()
    subject.add(schema_of({"name": "a", "type": "long"}))
    gone = subject.add(schema_of({"name": "b", "type": "long", "aliases": ["a"]}))
    subject.add(schema_of({"name": "c", "type": "long", "aliases": ["b", "a"]}))
    rows = lost(subject, gone, [{"b": 1}, {"b": 2}], 3)
    assert seen(subject.pinned().rows(0, rows, 3), "a") == ([1, 2], [])


def test_rows_of_a_lost_version_that_do_not_fit_stop_where_they_begin() -> None:
    subject = Subject()
    subject.add(schema_of({"name": "a", "type": "int"}))
    gone = subject.add(schema_of({"name": "a", "type": "long"}))
    subject.add(schema_of({"name": "a", "type": "long", "doc": "again"}))
    rows = lost(subject, gone, [{"a": 1}, {"a": 1 << 40}], 3)
    portion = subject.pinned().rows(0, rows, 3)
    assert portion.stop is not None
    assert "schema id 102, which the registry has lost, cannot be read as version 1" in portion.stop.error.what
    assert portion.stop.offset == 0
    # No value is in the text.
    assert str(1 << 40) not in str(portion.stop.error)


def test_rows_that_lack_a_value_which_must_be_there_stop() -> None:
    """The column was dropped, or stands under a name that only a lost version knew."""
    subject = Subject()
    older = subject.add(schema_of({"name": "a", "type": "string"}))
    rows = rows_of(older, "other", ["x"])
    portion = subject.pinned().rows(0, rows, 1)
    assert portion.stop is not None
    assert "they have no value of a" in portion.stop.error.what


def test_a_schema_that_was_registered_again_reads_its_own_events() -> None:
    subject = Subject()
    first = subject.add(schema_of({"name": "a", "type": "string"}))
    subject.add(schema_of({"name": "b", "type": "string", "aliases": ["a"]}))
    subject.versions.append(type(first)(first.id, 3, first.subject, first.schema))
    assert seen(read(subject.pinned(3), frame_of(first, {"a": "x"})), "a")[0] == ["x"]


def test_the_registry_is_asked_for_what_a_table_has_followed_meanwhile() -> None:
    subject = Subject()
    first = subject.add(schema_of({"name": "a", "type": "string"}))
    pinned = subject.pinned()
    subject.add(schema_of({"name": "b", "type": "string", "aliases": ["a"]}))
    assert pinned.relations.columns(2) == {"id", "b"}
    assert pinned.relations.columns(1) == {"id", "a"}
    table = MemoryTable(subject.versions)
    table.add(frame_of(first, {"a": "x"}), first, 1)
    for held, name in ((1, "a"), (2, "b")):
        assert seen(pinned.rows(0, table.rows(frozenset({"id", name}), held), held), "a")[0] == ["x"]


def test_a_version_that_is_no_avro_stops_at_its_own_events_alone() -> None:
    subject = Subject()
    good = subject.add(schema_of({"name": "a", "type": "string"}))
    bad = UnreadableSchema(102, 2, good.subject, "recursive types have no column type", "leave it out")
    known = Versions(product_of(good.schema), [good], lambda: [good, bad], lambda _: None)
    pinned = Pinned(product_of(good.schema), good, known, Masking(False, None, product_of(good.schema), POLICY, b""))
    frames = [frame_of(good, {"a": "x"}), Frame(0, 102, np.array([1]), np.array([0]), pa.nulls(1), pa.array([b"?"]))]
    portion = read(pinned, *frames, frame_of(good, {"a": "y"}, first=2))
    assert seen(portion, "a")[0] == ["x"]
    assert portion.stop is not None
    assert (portion.stop.offset, portion.end) == (1, 2)
    assert "version 2 cannot be read as version 1: recursive types" in portion.stop.error.what
    assert seen(read(pinned, frame_of(good, {"a": "y"}, first=2)), "a")[0] == ["y"]


def test_a_subject_that_was_made_anew_ends_who_knows_the_old_one() -> None:
    subject = Subject()
    old = subject.add(schema_of({"name": "a", "type": "string"}))
    pinned = subject.pinned()
    anew = subject.versions[0] = type(old)(201, 1, old.subject, schema_of({"name": "b", "type": "string"}))
    with pytest.raises(UserError, match="deleted in the registry and made anew"):
        read(pinned, frame_of(anew, {"b": "x"}))
