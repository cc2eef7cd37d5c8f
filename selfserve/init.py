"""``headrace init DIR``: a small mesh that passes ``headrace check`` as it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headrace.schemas.environment import STATE_FOLDER, ensure_hmac_key
from headrace.schemas.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def init_mesh(folder: Path) -> None:
    """Write a mesh of one domain and one product into a new or empty folder, with a key for its masks.

    Raises:
        UserError: if the folder holds anything already, or cannot be written; then nothing in it was changed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(
                "the folder is not empty", where=str(folder), hint="name a new folder, or move its files away first"
            )
        for name, text in _files(folder.resolve().name).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except FileExistsError:
        raise UserError("this is a file", where=str(folder), hint="name a new folder") from None
    except OSError as error:
        raise UserError(
            f"the folder cannot be written: {error.strerror}", where=str(folder), hint="name a folder of your own"
        ) from None
    ensure_hmac_key(folder)


def _files(folder_name: str) -> dict[str, str]:
    """Return the text of every file by its path."""
    name = re.sub(r"[^a-z0-9_-]+", "-", folder_name.lower()).strip("-_")[:63]
    name = name if name[:1].isalpha() else f"mesh-{name}"[:63].rstrip("-")
    return {
        "mesh.yaml": _MESH.replace("NAME", name),
        ".gitignore": f"# Servers' data, tables, the masks' key: none of it belongs into git.\n{STATE_FOLDER}/\n",
        "README.md": _README.replace("NAME", name),
        "policies/pii.yaml": _POLICY,
        "domains/shop/domain.yaml": _DOMAIN,
        "domains/shop/orders/contract.odcs.yaml": _CONTRACT,
        "domains/shop/orders/schema.avsc": _SCHEMA,
    }


_MESH = """\
name: NAME

# `embedded` runs on this machine and needs no servers. Others name the servers that they use:
#
#   production:
#     kafka:
#       bootstrap.servers: kafka.example:9093
#       security.protocol: SASL_SSL
#       sasl.mechanisms: SCRAM-SHA-512
#       sasl.username: headrace
#       sasl.password: ${env:KAFKA_PASSWORD}
#     registry: {url: "https://registry.example"}
#     catalog: {type: rest, uri: "https://catalog.example/api/catalog", warehouse: "{domain}"}
#     masking:
#       hmac_key: ${file:/run/secrets/headrace-hmac}
environments:
  embedded:
    stack: embedded
"""

_POLICY = """\
# What takes the place of personal data before it reaches any table. A rule for user.contact covers user.contact.email
# too, unless that has a rule of its own. A contract may choose a stronger mask for a field, never a weaker one.
# From strong to weak: replace-with-null and mask-to-fixed-value; hmac-sha-256; mask-alphanum, show-first-4,
# show-last-4 and truncate-to-year; truncate-to-month.
default: replace-with-null

categories:
  user.name: mask-alphanum
  user.contact: mask-alphanum
  user.contact.email: hmac-sha-256
  user.demographic.date_of_birth: truncate-to-year
  user.financial.credit_card: show-last-4
  user.government_id: hmac-sha-256
"""

_DOMAIN = """\
owner: shop-team
description: What customers order
"""

_CONTRACT = """\
apiVersion: v3.2.0
kind: DataContract
id: shop.orders
name: orders
version: 1.0.0
status: active
domain: shop
description:
  purpose: Every order that a customer placed.
team:
  name: shop-team
schema:
  - name: orders
    physicalName: shop.orders
    authoritativeDefinitions:
      - {type: schema, url: schema.avsc}
    # The Avro schema says what the fields are. Here stands what the contract adds: the key, a stronger mask.
    properties:
      - name: order_id
        primaryKey: true
slaProperties:
  - {property: latency, value: 10, unit: s}
  - {property: retention, value: 30, unit: d}
customProperties:
  - {property: kafka.partitions, value: 4}
  - {property: avro.compatibility, value: BACKWARD}
"""

_SCHEMA = """\
{
  "type": "record",
  "name": "Order",
  "namespace": "shop",
  "doc": "An order that a customer placed.",
  "fields": [
    {"name": "order_id", "type": "string"},
    {"name": "ordered_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "doc": "UTC"},
    {"name": "email", "type": "string", "confluent:tags": ["PII", "user.contact.email"]},
    {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "doc": "EUR"},
    {"name": "note", "type": ["null", "string"], "default": null}
  ]
}
"""

_README = """\
# NAME

A data mesh on headrace.

    mesh.yaml                       where the mesh runs
    policies/pii.yaml               which personal data gets which mask
    domains/<domain>/domain.yaml    who owns the domain
    domains/<domain>/<product>/
        schema.avsc                 structure of the events, and what in them is personal
        contract.odcs.yaml          purpose, owner, key, service levels (Open Data Contract Standard)

    headrace check                  are all files well? (reads files only)
    headrace up                     start Kafka and the schema registry on this machine
    headrace apply                  make topics, subjects and tables
    headrace publish shop.orders FILE
    headrace sink --until-caught-up
    headrace sql "SELECT count(*) FROM shop.orders"
    headrace down

`.headrace/hmac.key` keys the masks. Keep a copy where you keep secrets: with another key, masked values no longer join.
"""
