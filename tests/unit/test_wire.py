"""The message: Confluent's wire format, and keys that every client would make alike."""

from __future__ import annotations

import io
import json
from typing import Any
from uuid import UUID

import fastavro
import pytest

from headrace.producers.wire import Encoder
from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import EventError, SchemaError
from headrace.schemas.names import ProductName
from headrace.schemas.product import Compatibility, Contract, Product

AN_ID = UUID("6F1F3DD8-6f9e-4f0c-9d3b-0d2f6a1c2b3d")
SCHEMA = AvroSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Order",
            "fields": [
                {"name": "id", "type": "string"},
                {"name": "number", "type": ["null", "long"], "default": None},
                {"name": "uid", "type": {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}},
                {
                    "name": "buyer",
                    "type": [
                        "null",
                        {"type": "record", "name": "B", "fields": [{"name": "ref", "type": ["null", "string"]}]},
                    ],
                },
            ],
        }
    )
)
EVENT: dict[str, Any] = {"id": "Zoë", "number": 7, "uid": AN_ID, "buyer": {"ref": 'a"b'}}


def encoder(*key: str) -> Encoder:
    contract = Contract("1.0.0", "active", "shop", "orders", key, 1, Compatibility.BACKWARD, 10)
    return Encoder(Product(ProductName("shop", "orders"), contract, SCHEMA, {}, "shop.orders"), 0x01020304)


def test_a_value_is_the_header_and_the_avro_body() -> None:
    _, value = encoder("id").encode(EVENT)
    assert value[:5] == b"\x00\x01\x02\x03\x04"
    body = fastavro.schemaless_reader(io.BytesIO(value[5:]), SCHEMA.parsed, None)
    assert body == EVENT | {"uid": AN_ID.bytes}


@pytest.mark.parametrize(
    ("key", "change", "expected"),
    [
        (["id"], {}, "Zoë"),
        (["number"], {}, "7"),
        (["number"], {"number": None}, None),
        (["uid"], {}, str(AN_ID)),
        (["buyer.ref"], {}, 'a"b'),
        (["buyer.ref"], {"buyer": None}, None),
        (["id", "number"], {}, '["Zoë",7]'),
        (["buyer.ref", "number"], {"buyer": None}, "[null,7]"),
    ],
)
def test_keys(key: list[str], change: dict[str, Any], expected: str | None) -> None:
    made, _ = encoder(*key).encode(EVENT | change)
    assert made == (None if expected is None else expected.encode())


@pytest.mark.parametrize("key", ["nothing", "buyer", "id.x"])
def test_a_key_that_is_no_field_is_refused_at_once(key: str) -> None:
    with pytest.raises(SchemaError):
        encoder(key)


def test_an_error_names_the_product() -> None:
    with pytest.raises(EventError) as caught:
        encoder("id").encode(EVENT | {"id": 1})
    assert str(caught.value) == "shop.orders: id: expected a string, found int"
