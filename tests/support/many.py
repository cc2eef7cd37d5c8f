"""A mesh of as many products as one likes, each with a contract and a schema of a usual size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support.meshes import write

if TYPE_CHECKING:
    from pathlib import Path

# As many as a larger company's domain has.
PRODUCTS_A_DOMAIN = 25


def write_many(root: Path, count: int) -> None:
    """Write a mesh of ``count`` products, numbered from 0."""
    write(root / "mesh.yaml", "name: many\n")
    write(
        root / "policies" / "pii.yaml", "default: replace-with-null\ncategories: {user.contact.email: hmac-sha-256}\n"
    )
    for number in range(count):
        domain, product = names_of(number)
        folder = root / "domains" / domain
        if number % PRODUCTS_A_DOMAIN == 0:
            write(folder / "domain.yaml", f"owner: {domain}-team\ndescription: a domain of many\n")
        write(folder / product / "contract.odcs.yaml", contract(domain, product))
        write(folder / product / "schema.avsc", json.dumps(schema(product), indent=2))


def names_of(number: int) -> tuple[str, str]:
    """Return the domain and the name of a numbered product."""
    return f"domain{number // PRODUCTS_A_DOMAIN}", f"product{number}"


def contract(domain: str, product: str) -> str:
    """Return a contract."""
    return f"""
        apiVersion: v3.2.0
        kind: DataContract
        id: {domain}.{product}
        name: {product}
        version: 1.2.0
        status: active
        domain: {domain}
        tenant: example
        description:
          purpose: >-
            Every order that was placed in a shop: who placed it, what it holds, what it costs, and how it was paid.
            One event an order, published when the order is confirmed.
          usage: Turnover by product, shop or day.
          limitations: Orders that were cancelled within a minute are not in it.
        team:
          name: {domain}-team
        schema:
          - name: {product}
            physicalName: {domain}.{product}
            dataGranularityDescription: one row an order
            authoritativeDefinitions:
              - {{type: schema, url: schema.avsc}}
            properties:
              - name: id
                primaryKey: true
                primaryKeyPosition: 1
              - name: email
                customProperties:
                  - {{property: mask, value: hmac-sha-256}}
            quality:
              - {{type: text, description: the amount is never negative}}
        slaProperties:
          - {{property: latency, value: 10, unit: s}}
          - {{property: retention, value: 30, unit: d}}
        customProperties:
          - {{property: kafka.partitions, value: 4}}
          - {{property: avro.compatibility, value: BACKWARD}}
        """


def schema(product: str) -> dict[str, Any]:
    """Return a schema of some twenty fields."""
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
    item = {
        "type": "record",
        "name": "Item",
        "fields": [
            {"name": "sku", "type": "string"},
            {"name": "count", "type": "int"},
            {"name": "price", "type": decimal},
        ],
    }
    optional = [{"name": f"note{number}", "type": ["null", "string"], "default": None} for number in range(8)]
    return {
        "type": "record",
        "name": "Order",
        "namespace": f"example.{product}",
        "doc": "An order.",
        "fields": [
            {"name": "id", "type": "string", "doc": "the shop's number of it"},
            {"name": "placed_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "amount", "type": decimal},
            {"name": "currency", "type": {"type": "enum", "name": "Currency", "symbols": ["EUR", "USD", "GBP"]}},
            {"name": "email", "type": "string", "confluent:tags": ["PII", "user.contact.email"]},
            {"name": "items", "type": {"type": "array", "items": item}},
            {"name": "labels", "type": {"type": "map", "values": "string"}},
            *optional,
        ],
    }
