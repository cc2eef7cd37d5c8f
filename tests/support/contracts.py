"""Contracts for tests: of one product with fields of many kinds, read from YAML."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from headrace.schemas.avro import AvroSchema
from headrace.schemas.contract import OdcsDocument
from headrace.schemas.documents import parse
from headrace.schemas.names import ProductName
from headrace.schemas.policy import PiiPolicy

if TYPE_CHECKING:
    from headrace.schemas.errors import Fault
    from headrace.schemas.masks import Mask
    from headrace.schemas.product import Contract

NAME = ProductName("shop", "orders")
POLICY = PiiPolicy.model_validate({"default": "replace-with-null", "categories": {"user.contact": "hmac-sha-256"}})
SCHEMA = AvroSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Order",
            "fields": [
                {"name": "order_id", "type": "string"},
                {"name": "line", "type": ["null", "int"]},
                {"name": "customer", "type": {"type": "string", "logicalType": "uuid"}},
                {"name": "placed_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
                {"name": "total", "type": "double"},
                {"name": "email", "type": "string", "confluent:tags": ["PII", "user.contact.email"]},
                {"name": "born", "type": {"type": "int", "logicalType": "date"}, "confluent:tags": ["PII"]},
                {
                    "name": "ship_to",
                    "type": {
                        "type": "record",
                        "name": "Address",
                        "fields": [
                            {"name": "street", "type": "string", "confluent:tags": ["PII", "user.home"]},
                            {"name": "country", "type": "string"},
                        ],
                    },
                },
                {
                    "name": "items",
                    "type": {
                        "type": "array",
                        "items": {"type": "record", "name": "Item", "fields": [{"name": "sku", "type": "string"}]},
                    },
                },
                {
                    "name": "notes",
                    "type": {
                        "type": "map",
                        "values": {"type": "record", "name": "Note", "fields": [{"name": "text", "type": "string"}]},
                    },
                },
            ],
        }
    )
)


def document(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": "shop.orders",
        "name": "orders",
        "version": "1.2.3",
        "status": "active",
        "domain": "shop",
        "description": {"purpose": "Every order.\n"},
        "team": {"name": "shop-team"},
        "schema": [table(KEY)],
    }
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def table(*properties: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "orders",
        "authoritativeDefinitions": [{"type": "schema", "url": "schema.avsc"}],
        "properties": list(properties),
        **changes,
    }


def masked(name: str, mask: object) -> dict[str, Any]:
    return {"name": name, "customProperties": [{"property": "mask", "value": mask}]}


KEY: dict[str, Any] = {"name": "order_id", "primaryKey": True}


def read(whole: dict[str, Any]) -> tuple[Contract, dict[str, Mask]] | list[str]:
    """Read a contract from YAML; the faults as text where there are any."""
    faults: list[Fault] = []
    parsed = parse(yaml.safe_dump(whole, sort_keys=False).encode(), "c.yaml", faults)
    assert parsed is not None
    odcs = OdcsDocument.parse(parsed, faults)
    found = None
    if odcs is not None and odcs.schema_url(faults) is not None:
        found = odcs.read(NAME, SCHEMA, POLICY, faults)
    if found is None or faults:
        assert faults
        assert found is None or faults
        return [str(fault) for fault in faults]
    return found[0], dict(found[1])


def contract_of(whole: dict[str, Any]) -> Contract:
    found = read(whole)
    assert isinstance(found, tuple), found
    return found[0]


def faults_of(whole: dict[str, Any]) -> str:
    found = read(whole)
    assert isinstance(found, list), found
    return "\n".join(found)


def custom(name: str, value: object) -> list[dict[str, Any]]:
    return [{"property": name, "value": value}]
