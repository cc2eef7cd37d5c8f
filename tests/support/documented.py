"""A mesh with a product that has something of everything, for what `headrace export` writes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from headrace.selfserve.init import init_mesh
from headrace.selfserve.kinds import Kind
from headrace.selfserve.new import Answers, place_of
from tests.support.meshes import write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WIDE = "shop.wide"
# What Markdown, HTML, YAML and a terminal each would read as their own.
HARD = "a|b `c` *d* _e_ <b>f</b> [g](http://h) \\ # i\nj: k - l \u2028 é 日本 🙂 \u202e'\"${env:M} {{n}} ~~o~~ &amp;"
SECRETS = {"KAFKA_PASSWORD": "kafka-hunter2", "REGISTRY_USER": "registry-hunter2", "CATALOG_TOKEN": "catalog-hunter2"}


def _logical(base: str, logical: str, **more: int) -> dict[str, Any]:
    return {"type": base, "logicalType": logical, **more}


ADDRESS: Mapping[str, Any] = {
    "type": "record",
    "name": "Address",
    "doc": "where somebody lives",
    "fields": [
        {"name": "street", "type": "string", "confluent:tags": ["PII", "user.contact"]},
        {"name": "country", "type": {"type": "enum", "name": "Country", "symbols": ["DE", "IT"], "default": "DE"}},
    ],
}
SCHEMA: Mapping[str, Any] = {
    "type": "record",
    "name": "Wide",
    "namespace": "shop",
    "doc": HARD,
    "fields": [
        {"name": "id", "type": _logical("string", "uuid"), "doc": HARD},
        {"name": "line", "type": "int", "doc": "nul \0 bell \a nel \x85 bom \ufeff"},
        {"name": "size", "type": ["null", "long"], "default": None, "aliases": ["width"]},
        {"name": "ratio", "type": "float"},
        {"name": "exact", "type": "double"},
        {"name": "flag", "type": "boolean"},
        {"name": "raw", "type": "bytes"},
        {"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 16}},
        {"name": "price", "type": _logical("bytes", "decimal", precision=9, scale=2)},
        {"name": "day", "type": _logical("int", "date")},
        {"name": "at", "type": _logical("long", "timestamp-millis")},
        {"name": "at_micros", "type": ["null", _logical("long", "timestamp-micros")], "default": None},
        {"name": "local", "type": _logical("long", "local-timestamp-micros")},
        {"name": "email", "type": "string", "confluent:tags": ["PII", "user.contact.email"]},
        {"name": "born", "type": _logical("int", "date"), "confluent:tags": ["PII", "user.demographic.date_of_birth"]},
        {"name": "home", "type": ["null", ADDRESS], "default": None},
        {"name": "others", "type": {"type": "array", "items": "Address"}},
        {"name": "grid", "type": {"type": "array", "items": {"type": "array", "items": ["null", "int"]}}},
        {"name": "labels", "type": {"type": "map", "values": "string"}},
        {"name": "places", "type": {"type": "map", "values": "Address"}},
        {"name": "payer", "type": ["null", "string", {"type": "record", "name": "Firm", "fields": [
            {"name": "vat", "type": "string", "doc": "the firm's number"}]}]},
    ],
}  # fmt: skip
CONTRACT = f"""\
apiVersion: v3.2.0
kind: DataContract
id: {WIDE}
name: wide
version: "1.10.0"
status: draft
domain: shop
dataProduct: everything
tags: [a, "1.5"]
description:
  purpose: {json.dumps(HARD, ensure_ascii=False)}
  usage: for tests
team:
  name: shop-team
  members: [{{username: ann@example.org, role: owner}}]
servers:
  - {{server: archive, type: custom, description: kept by hand}}
schema:
  - name: wide
    physicalName: {WIDE}
    authoritativeDefinitions:
      - {{type: schema, url: schema.avsc}}
    properties:
      - {{name: line, primaryKey: true, primaryKeyPosition: 2}}
      - {{name: id, primaryKey: true, primaryKeyPosition: 1, tags: [own], classification: internal}}
      - {{name: email, description: said here, customProperties: [{{property: mask, value: replace-with-null}}]}}
      - {{name: day, partitioned: true, partitionKeyPosition: 1}}
      - name: _kafka_timestamp
        partitioned: true
        partitionKeyPosition: 2
        customProperties: [{{property: iceberg.transform, value: month}}]
      - name: others
        items:
          properties:
            - {{name: street, customProperties: [{{property: mask, value: replace-with-null}}]}}
slaProperties:
  - {{property: retention, value: 7, unit: d}}
customProperties:
  - {{property: kafka.partitions, value: 6}}
  - {{property: kafka.cleanup.policy, value: "compact,delete"}}
  - {{property: iceberg.sortOrder, value: [{{field: at, direction: desc}}]}}
  - {{property: inputContracts, value: [{{id: shop.orders, version: 1.0.0}}]}}
  - {{property: somebody.else, value: {{deep: [1, "1e3", null, "no"]}}}}
"""
ENVIRONMENTS = """\
  production:
    topic_prefix: prod.
    kafka:
      bootstrap.servers: "kafka-1.example:9093, ${env:SECOND_BROKER}"
      security.protocol: SASL_SSL
      sasl.mechanisms: SCRAM-SHA-512
      sasl.username: headrace
      sasl.password: ${env:KAFKA_PASSWORD}
    registry:
      url: "https://${env:REGISTRY_USER}:${file:/run/secrets/registry}@registry.example/api?x=y"
      basic.auth.user.info: "${env:REGISTRY_USER}"
    catalog:
      type: rest
      uri: "https://catalog.example/api/catalog"
      warehouse: "w-{domain}"
      token: "${env:CATALOG_TOKEN}"
    masking: {hmac_key: "${file:hmac}"}
"""


def documented_mesh(root: Path) -> None:
    """Make a mesh with the wide product and one of each kind, and with an environment of servers elsewhere."""
    init_mesh(root)
    with (root / "mesh.yaml").open("a", encoding="utf-8") as file:
        file.write(ENVIRONMENTS)
    for kind in Kind:
        name = kind.value.replace("-", "_")
        inputs = ["shop.orders"] if kind is Kind.DERIVED else []
        place_of(f"shop/a_{name}", root).write(Answers(kind=kind, inputs=inputs, purpose=f"a {kind} to be exported"))
    write(root / "domains/shop/wide/contract.odcs.yaml", CONTRACT)
    write(root / "domains/shop/wide/schema.avsc", json.dumps(SCHEMA))
