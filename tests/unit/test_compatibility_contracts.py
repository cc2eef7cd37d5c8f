"""What a contract promised and does not any more."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.compatibility import Breaks, check_contracts
from headrace.schemas.masks import Mask
from headrace.schemas.names import ProductName
from headrace.schemas.product import Compatibility, Contract, Product

FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "string"},
    {"name": "email", "type": "string", "confluent:tags": ["PII", "user.contact.email"]},
    {"name": "note", "type": "string"},
]
CONTRACT = Contract(
    version="1.0.0",
    status="active",
    owner="shop-team",
    purpose="orders",
    key=("id",),
    partitions=4,
    compatibility=Compatibility.BACKWARD_TRANSITIVE,
    freshness_s=10.0,
    retention_ms=86_400_000,
)


def product(*fields: dict[str, Any], **changed: Any) -> Product:
    masks = changed.pop("masks", {"email": Mask.HMAC_SHA_256, "note": Mask.SHOW_LAST_4})
    schema = AvroSchema.parse(json.dumps({"type": "record", "name": "Order", "fields": list(fields or FIELDS)}))
    return Product(ProductName("shop", "orders"), replace(CONTRACT, **changed), schema, masks, "shop.orders")


OLD = product()
# What changes; then rule, path, old and new of each finding.
CHANGES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("nothing", {}, []),
    ("an owner removed", {"owner": " "}, ["OWNER_REMOVED team.name shop-team absent"]),
    ("another owner", {"owner": "crm-team"}, []),
    ("deprecated", {"status": "deprecated"}, []),
    ("withdrawn", {"status": "retired"}, ["STATUS_WITHDRAWN status active retired"]),
    ("slower", {"freshness_s": 3600.0}, ["SLA_RELAXED slaProperties.latency 10 s 3600 s"]),
    ("faster", {"freshness_s": 0.5}, []),
    ("kept for less", {"retention_ms": 3_600_000}, ["SLA_RELAXED slaProperties.retention 86400 s 3600 s"]),
    ("kept for nobody knows how long", {"retention_ms": None}, ["SLA_RELAXED slaProperties.retention 86400 s absent"]),
    ("kept for longer", {"retention_ms": 10**12}, []),
    ("more partitions", {"partitions": 8}, ["PARTITIONS_CHANGED customProperties.kafka.partitions 4 8"]),
    (
        "compacted",
        {"cleanup_policy": "compact,delete"},
        ["CLEANUP_POLICY_CHANGED customProperties.kafka.cleanup.policy delete compact,delete"],
    ),
    ("another key", {"key": ("id", "note")}, ["KEY_CHANGED schema[0].properties.primaryKey id id,note"]),
    ("a level that promises more", {"compatibility": Compatibility.FULL_TRANSITIVE}, []),
    *(
        (
            f"the level lowered to {level}",
            {"compatibility": level},
            [f"COMPATIBILITY_LOWERED customProperties.avro.compatibility BACKWARD_TRANSITIVE {level}"],
        )
        for level in (Compatibility.NONE, Compatibility.BACKWARD, Compatibility.FORWARD_TRANSITIVE, Compatibility.FULL)
    ),
    (
        "a weaker mask",
        {"masks": {"email": Mask.SHOW_FIRST_4, "note": Mask.SHOW_LAST_4}},
        ["MASK_WEAKENED email hmac-sha-256 show-first-4"],
    ),
    ("a stronger mask", {"masks": {"email": Mask.REPLACE_WITH_NULL, "note": Mask.MASK_ALPHANUM}}, []),
    ("no mask", {"masks": {"email": Mask.HMAC_SHA_256}}, ["MASK_REMOVED note show-last-4 absent"]),
]


@pytest.mark.parametrize(("changed", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_a_change(changed: dict[str, Any], expected: list[str]) -> None:
    found = check_contracts(OLD, product(**changed))
    assert [f"{each.rule} {each.path} {each.old} {each.new}" for each in found] == expected
    assert all(each.layer == "governance" and each.hint for each in found)


def test_the_field_of_a_key_or_of_a_mask_may_be_renamed() -> None:
    fields = [
        {"name": "order_id", "type": "string", "aliases": ["id"]},
        {**FIELDS[1], "name": "mail", "aliases": ["email"]},
        FIELDS[2],
    ]
    masks = {"mail": Mask.HMAC_SHA_256, "note": Mask.SHOW_LAST_4}
    assert check_contracts(OLD, product(*fields, key=("order_id",), masks=masks)) == ()
    weaker = {**masks, "mail": Mask.SHOW_FIRST_4}
    (found,) = check_contracts(OLD, product(*fields, key=("order_id",), masks=weaker))
    assert (found.rule, found.path, found.breaks) == ("MASK_WEAKENED", "mail", Breaks.MASK)


def test_a_mask_that_goes_with_its_field_or_its_tag_is_not_told_of_twice() -> None:
    """The tag is found by comparing the schemas."""
    masks = {"note": Mask.SHOW_LAST_4}
    assert check_contracts(OLD, product(FIELDS[0], FIELDS[2], masks=masks)) == ()
    assert check_contracts(OLD, product(FIELDS[0], {"name": "email", "type": "string"}, FIELDS[2], masks=masks)) == ()


def test_a_mask_of_the_record_around_covers_the_field() -> None:
    inner = {"type": "record", "name": "C", "fields": [{"name": "x", "type": "string"}]}
    fields = [FIELDS[0], {"name": "c", "type": {"type": "array", "items": inner}}]
    old = product(*fields, masks={"c[].x": Mask.SHOW_FIRST_4})
    assert check_contracts(old, product(*fields, masks={"c": Mask.REPLACE_WITH_NULL})) == ()


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ({"c.x": Mask.REPLACE_WITH_NULL, "c.y": Mask.REPLACE_WITH_NULL}, []),
        (
            {"c.x": Mask.REPLACE_WITH_NULL, "c.y": Mask.HMAC_SHA_256},
            ["MASK_WEAKENED c replace-with-null hmac-sha-256"],
        ),
        ({"c.x": Mask.REPLACE_WITH_NULL}, ["MASK_REMOVED c replace-with-null absent"]),
    ],
)
def test_masks_of_all_that_a_record_holds_are_the_records(inside: dict[str, Mask], expected: list[str]) -> None:
    parts = [{"name": "x", "type": "string"}, {"name": "y", "type": "string"}]
    fields = [FIELDS[0], {"name": "c", "type": {"type": "record", "name": "C", "fields": parts}}]
    old = product(*fields, masks={"c": Mask.REPLACE_WITH_NULL})
    found = check_contracts(old, product(*fields, masks=inside))
    assert [f"{each.rule} {each.path} {each.old} {each.new}" for each in found] == expected
