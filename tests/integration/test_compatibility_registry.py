"""The Avro layer against the registry that people run: Apicurio, which asks the Avro project's Java library."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from headrace.schemas.avro import AvroSchema
from headrace.schemas.compatibility import check, parse
from headrace.schemas.product import Compatibility
from tests.support.evolving import pair
from tests.support.registries import registry_client

if TYPE_CHECKING:
    from tests.support.meshes import Cluster

PAIRS = 200
MODES = (Compatibility.BACKWARD, Compatibility.FORWARD, Compatibility.FULL)


@pytest.fixture
def client(cluster: Cluster) -> SchemaRegistryClient:
    return registry_client({"url": cluster.endpoints.registry_url})


def test_the_registry_says_the_same_of_generated_pairs(client: SchemaRegistryClient, prefix: str) -> None:
    both: dict[bool, int] = {True: 0, False: 0}
    deviations = []
    for seed in range(PAIRS):
        old, new = pair(Random(seed))
        subject, mode = f"{prefix}pair{seed}-value", MODES[seed % len(MODES)]
        ours = check([old], new, mode)
        theirs = verdict(client, subject, (old, new), mode)
        both[theirs] += 1
        if ours.compatible is not theirs:
            deviations.append((seed, mode, theirs, ours.findings, old.text, new.text))
    assert not deviations, deviations
    assert min(both.values()) >= PAIRS // 4, "the pairs say nothing if nearly all are of one kind"


NODE = (
    '{"type":"record","name":"Node","namespace":"n",'
    '"fields":[{"name":"v","type":"%s"},{"name":"next","type":["null","Node"]}]}'
)


@pytest.mark.parametrize(("old", "new", "compatible"), [("int", "long", True), ("long", "int", False)])
def test_the_registry_says_the_same_of_recursive_types(
    client: SchemaRegistryClient, prefix: str, old: str, new: str, compatible: bool
) -> None:
    schemas = parse(NODE % old), parse(NODE % new)
    assert check(schemas[:1], schemas[1], Compatibility.BACKWARD).compatible is compatible
    assert verdict(client, f"{prefix}node-{old}-value", schemas, Compatibility.BACKWARD) is compatible


# A field and its aliases find two fields of the old version: Java's library gives up, others match by name first.
AMBIGUOUS = {
    "crossing": [{"name": "a", "type": "int", "aliases": ["b"]}, {"name": "b", "type": "int", "aliases": ["a"]}],
    "of a field that is there": [{"name": "a", "type": "int", "aliases": ["b"]}],
    "of two": [{"name": "c", "type": "int", "aliases": ["a", "b"]}],
}


@pytest.mark.parametrize("fields", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_the_registry_cannot_judge_the_table_refuses(
    client: SchemaRegistryClient, prefix: str, fields: list[dict[str, Any]]
) -> None:
    both = [{"name": "a", "type": "int"}, {"name": "b", "type": "int"}]
    old, new = (
        AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": each})) for each in (both, fields)
    )
    with pytest.raises(SchemaRegistryError):
        verdict(client, f"{prefix}aliases-value", (old, new), Compatibility.BACKWARD)
    report = check([old], new, Compatibility.BACKWARD)
    assert {finding.rule for finding in report.findings} <= {"ALIAS_AMBIGUOUS", "ALIAS_OF_EXISTING_COLUMN"}
    assert not report.ok


def verdict(
    client: SchemaRegistryClient, subject: str, schemas: tuple[AvroSchema, AvroSchema], mode: Compatibility
) -> bool:
    old, new = (Schema(schema.text, "AVRO") for schema in schemas)
    client.register_schema(subject, old)
    client.set_compatibility(subject, str(mode))
    return bool(client.test_compatibility(subject, new))
