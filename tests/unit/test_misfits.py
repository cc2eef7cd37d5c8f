"""Where a value does not fit its schema: the field is named, its value never is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.schemas.avro import AvroSchema
from headrace.streams.decode import Decoder
from tests.support.meshes import encoded

SCHEMA = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "string"},
        {
            "name": "buyer",
            "type": {
                "type": "record",
                "name": "Person",
                "fields": [
                    {"name": "name", "type": "string"},
                    {
                        "name": "address",
                        "default": None,
                        "type": [
                            "null",
                            {"type": "record", "name": "Address", "fields": [{"name": "city", "type": "string"}]},
                        ],
                    },
                ],
            },
        },
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "payer", "type": ["null", "Person"], "default": None},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}
EVENT: dict[str, Any] = {
    "id": "o1",
    "buyer": {"name": "ann", "address": {"city": "rome"}},
    "at": 1_700_000_000_000,
    "payer": {"name": "bob", "address": None},
    "tags": ["x", "y"],
}


@pytest.fixture(scope="module")
def schema() -> AvroSchema:
    return AvroSchema.parse(json.dumps(SCHEMA))


@pytest.fixture(scope="module")
def decoder(schema: AvroSchema) -> Decoder:
    return Decoder(schema, 7)


def test_a_value_that_fits_has_no_misfit(schema: AvroSchema, decoder: Decoder) -> None:
    assert decoder.misfit(encoded(schema, 7, EVENT)) is None


def test_another_header_is_not_looked_behind(schema: AvroSchema, decoder: Decoder) -> None:
    assert decoder.misfit(encoded(schema, 8, EVENT)[:-1]) is None


@pytest.mark.parametrize(
    ("spoil", "path"),
    [
        (lambda value: value[:5], "id"),
        (lambda value: value[:7], "id"),
        (lambda value: value.replace(b"ann", b"\xff\xfe\xff"), "buyer.name"),
        (lambda value: value.replace(b"rome", b"\xff\xfe\xff\xfe"), "buyer.address.city"),
        (lambda value: value.replace(b"bob", b"\xff\xfe\xff"), "payer.name"),
        (lambda value: value[:-2], "tags"),
        (lambda value: value + b"\0", ""),
    ],
)
def test_the_first_field_that_cannot_be_read_is_named(
    schema: AvroSchema, decoder: Decoder, spoil: Any, path: str
) -> None:
    value = spoil(encoded(schema, 7, EVENT))
    assert decoder.misfit(value) == path


def test_what_no_table_can_hold_is_named(schema: AvroSchema, decoder: Decoder) -> None:
    assert decoder.misfit(encoded(schema, 7, {**EVENT, "at": 10**17})) == "at"
