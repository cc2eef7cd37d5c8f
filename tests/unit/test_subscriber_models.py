"""Does a model fit a schema? Sentence, schema's field, model's annotation, verdict."""

from __future__ import annotations

import datetime as dt
import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import Refusal, UserError
from headrace.schemas.registry import RegisteredSchema
from headrace.streams.models import Model
from tests.support.lake import product_of

SOME = AvroSchema.parse(json.dumps({"type": "record", "name": "E", "fields": [{"name": "id", "type": "string"}]}))


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class OneColour(enum.StrEnum):
    RED = "red"


class Inner(BaseModel):
    n: int


@dataclass
class InnerToo:
    n: int


class Wrong(BaseModel):
    n: str


COLOUR = {"type": "enum", "name": "Colour", "symbols": ["red", "blue"]}
INNER = {"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "int"}]}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
STAMP = {"type": "long", "logicalType": "timestamp-micros"}
DAY = {"type": "int", "logicalType": "date"}
UID = {"type": "string", "logicalType": "uuid"}

TIME = {"type": "long", "logicalType": "time-micros"}
TERM = {"type": "fixed", "name": "Term", "size": 12, "logicalType": "duration"}
NANOS = {"type": "long", "logicalType": "timestamp-nanos"}


class Either(BaseModel):
    inner: Inner | None = Field(default=None, alias="Inner")
    string: str | None = None


@dataclass
class EitherToo:
    string: str | None
    Inner: InnerToo | None


class Narrow(BaseModel):
    string: str


class Term(BaseModel):
    months: int
    days: int
    millis: int


FITS: list[tuple[Any, Any]] = [
    (TIME, str),
    (TIME, dt.time),
    (["null", TIME], dt.time | None),
    (NANOS, int),
    (TERM, Term),
    (["null", TERM], dict[str, int] | None),
    ([INNER, "string"], Either),
    (["null", "string", INNER], EitherToo | None),
    ({"type": "array", "items": [INNER, "null", "string"]}, list[Either | None]),
    ("string", str),
    ("string", Any),
    ("string", str | None),
    ("string", Optional[str]),  # noqa: UP045 - people write it
    ("string", Annotated[str, Field(min_length=1)]),
    ("int", float),
    ("long", Decimal),
    ("double", float),
    (["null", "string"], str | None),
    (["null", "string"], Any),
    (DECIMAL, Decimal),
    (UID, UUID),
    (DAY, dt.date),
    (STAMP, dt.datetime),
    (STAMP, dt.datetime | str),
    ("bytes", bytes),
    (COLOUR, str),
    (COLOUR, Colour),
    (COLOUR, Literal["red", "blue", "green"]),
    ({"type": "array", "items": "int"}, list[int]),
    ({"type": "array", "items": "int"}, Sequence[float]),
    ({"type": "array", "items": ["null", "int"]}, list[int | None]),
    ({"type": "array", "items": INNER}, tuple[Inner, ...]),
    ({"type": "map", "values": "int"}, dict[str, int]),
    ({"type": "map", "values": "int"}, Mapping[str, Any]),
    (INNER, Inner),
    (INNER, InnerToo),
    (INNER, dict[str, Any]),
    ("int", Annotated[str, BeforeValidator(str)]),
]

MISFITS: list[tuple[Any, Any, str]] = [
    (TIME, int, "value: the schema has a time of day, the model int"),
    ("string", dt.time, "value: the schema has string, the model time"),
    (NANOS, dt.datetime, "value: the schema has long, the model datetime"),
    (TERM, int, "value: the schema has record, the model int"),
    ([INNER, "string"], str, "value: the schema has a record of the union's branches Inner, string, the model str"),
    (["null", INNER, "string"], Either, "value: the schema lets it be null, the model takes no None"),
    ([INNER, "string"], Narrow, "value.string: the schema lets it be null, the model takes no None"),
    ("string", int, "value: the schema has string, the model int"),
    ("int", str, "value: the schema has int, the model str"),
    ("double", int, "value: the schema has double, the model int"),
    (DECIMAL, float, "value: the schema has decimal(9, 2), the model float"),
    (UID, str, "value: the schema has uuid, the model str"),
    (STAMP, dt.date, "value: the schema has timestamptz, the model date"),
    (["null", "string"], str, "value: the schema lets it be null, the model takes no None"),
    (COLOUR, OneColour, "value: the schema has an enum of red, blue, the model OneColour"),
    (COLOUR, Literal["red"], "value: the schema has an enum of red, blue, the model Literal['red']"),
    (COLOUR, int, "value: the schema has an enum of red, blue, the model int"),
    ({"type": "array", "items": "int"}, list[str], "value[]: the schema has int, the model str"),
    ({"type": "array", "items": "int"}, int, "value: the schema has array, the model int"),
    ({"type": "array", "items": "int"}, dict[str, int], "value: the schema has array, the model dict[str, int]"),
    ({"type": "array", "items": ["null", "int"]}, list[int], "value[]: the schema lets it be null"),
    ({"type": "map", "values": "int"}, dict[str, str], "value{}: the schema has int, the model str"),
    ({"type": "map", "values": "int"}, list[int], "value: the schema has map, the model list[int]"),
    (INNER, Wrong, "value.n: the schema has int, the model str"),
    (INNER, str, "value: the schema has record, the model str"),
    ("string", Inner, "value: the schema has string, the model Inner"),
    ("string", None, "value: the model takes None alone, the schema has string"),
]


def version(*fields: dict[str, Any]) -> RegisteredSchema:
    text = json.dumps({"type": "record", "name": "Event", "fields": [{"name": "id", "type": "string"}, *fields]})
    return RegisteredSchema(1, 3, "s", AvroSchema.parse(text))


def made(model: type[Any], avro: RegisteredSchema, nulled: frozenset[str] = frozenset()) -> Model[Any]:
    return Model(model, product_of(SOME), avro, nulled)


def pydantic_of(annotation: Any) -> type[Any]:
    return type("M", (BaseModel,), {"__annotations__": {"value": annotation}})


def dataclass_of(annotation: Any) -> type[Any]:
    return dataclass(type("D", (), {"__annotations__": {"value": annotation}}))


@pytest.mark.parametrize("of", [pydantic_of, dataclass_of])
@pytest.mark.parametrize(("avro", "annotation"), FITS)
def test_fits(of: Any, avro: Any, annotation: Any) -> None:
    made(of(annotation), version({"name": "value", "type": avro}))


@pytest.mark.parametrize("of", [pydantic_of, dataclass_of])
@pytest.mark.parametrize(("avro", "annotation", "told"), MISFITS)
def test_does_not_fit_and_says_both_sides(of: Any, avro: Any, annotation: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        made(of(annotation), version({"name": "value", "type": avro}))
    assert f"the model does not fit the schema: {told}" in caught.value.what
    assert "for shop.orders (version 3)" in str(caught.value.where)
    assert caught.value.hint


def test_a_field_that_the_schema_does_not_have() -> None:
    class Needs(BaseModel):
        id: str
        note: str

    class CanDoWithout(BaseModel):
        id: str
        note: str = "none"

    @dataclass
    class CanDoWithoutToo:
        id: str
        note: list[str] = field(default_factory=list)
        cached: int = field(init=False, default=0)

    with pytest.raises(UserError, match="note: the model requires it, the schema does not have it"):
        made(Needs, version())
    assert made(CanDoWithout, version()).make({"id": "a"}) == CanDoWithout(id="a")
    assert made(CanDoWithoutToo, version()).make({"id": "a", "extra": 1}) == CanDoWithoutToo("a")


def test_a_model_that_forbids_extra_fields_must_have_them_all() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        id: str

    with pytest.raises(UserError, match="note: the schema has it, the model forbids extra fields"):
        made(Strict, version({"name": "note", "type": "string"}))


def test_values_of_unions_and_times_become_the_models() -> None:
    class Event(BaseModel):
        value: Either | None
        at: dt.time

    avro = version({"name": "value", "type": ["null", INNER, "string"]}, {"name": "at", "type": TIME})
    model = made(Event, avro)
    event = model.make({"id": "a", "value": {"Inner": {"n": 1}, "string": None}, "at": "23:59:59.999999"})
    assert event == Event(value=Either.model_validate({"Inner": Inner(n=1)}), at=dt.time.max)


def test_names_are_the_models_aliases() -> None:
    class Aliased(BaseModel):
        identity: str = Field(alias="id")

    assert made(Aliased, version()).make({"id": "a"}).identity == "a"


def test_a_field_whose_mask_is_null_must_take_none_though_the_schema_requires_it() -> None:
    masked = frozenset({"email", "inner.n"})
    fields = version({"name": "email", "type": "string"}, {"name": "inner", "type": INNER})

    class Sure(BaseModel):
        email: str

    class SureInside(BaseModel):
        inner: Inner

    for model, path in ((Sure, "email"), (SureInside, "inner.n")):
        made(model, fields)
        with pytest.raises(UserError, match=f"{path}: its mask makes it null in the table, the model takes no None"):
            made(model, fields, masked)


def test_what_is_no_model_is_refused() -> None:
    for each in (dict, str, int):
        with pytest.raises(UserError, match="no pydantic model and no dataclass"):
            made(each, version())


def test_a_model_that_pydantic_cannot_use_is_refused() -> None:
    class Unknown(BaseModel):
        value: Nowhere  # type: ignore[name-defined]  # noqa: F821 - what is tested

    with pytest.raises(UserError, match="pydantic cannot use the model"):
        made(Unknown, version({"name": "value", "type": "string"}))


def test_a_value_that_the_model_refuses_is_poison_that_shows_no_value() -> None:
    class Positive(BaseModel):
        id: Annotated[str, Field(max_length=3)]

    model = made(Positive, version())
    with pytest.raises(Refusal) as caught:
        model.make({"id": "secret"})
    assert caught.value.reason == "model"
    assert caught.value.what == "the model refuses it: id: string_too_long"


def test_an_error_of_the_models_own_code_shows_no_value() -> None:
    @dataclass
    class Bad:
        id: str

        def __post_init__(self) -> None:
            raise KeyError(self.id)

    with pytest.raises(Refusal, match="the model refuses it: KeyError") as caught:
        made(Bad, version()).make({"id": "secret"})
    assert "secret" not in str(caught.value)
