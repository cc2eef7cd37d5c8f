"""Messages that cannot become rows: each becomes one dead letter, and nothing else is delayed or lost."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.schema_registry import Schema

from headrace.streams.admin import Admin
from tests.support.amending import patient
from tests.support.meshes import ORDER, ORDERS, encoded, ids, order, query, send
from tests.support.registries import registry_client
from tests.support.sinks import (
    assert_exactly_once,
    caught_up,
    dead_letters,
    events,
    registered_id,
)

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

RETURNS = "shop.returns"
MANY = 1_000_000
# No registry gives these out in a test: one of them is above what a signed 32-bit number holds.
UNKNOWN_IDS = (0, 999_999, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)


@pytest.fixture
def mesh(mesh: Mesh) -> Mesh:
    """The mesh, whose workers are missed late: nobody is killed here."""
    return patient(mesh)


def header(schema_id: int) -> bytes:
    return struct.pack(">bI", 0, schema_id)


def foreign_id(mesh: Mesh, subject: str, schema: str, kind: str) -> int:
    """Register a schema for a subject of somebody else."""
    client = registry_client(mesh.environment.registry_config())
    try:
        return int(client.register_schema(f"{mesh.environment.topic_prefix}{subject}", Schema(schema, kind)))
    finally:
        client.close()


def foreign_ids(mesh: Mesh) -> dict[str, int]:
    record = {"type": "record", "name": "Foreign", "fields": [{"name": "id", "type": "string"}]}
    document = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
    tree = {"type": "record", "name": "Tree", "fields": [{"name": "left", "type": ["null", "Tree"]}]}
    return {
        "foreign": foreign_id(mesh, "foreign-value", json.dumps(record), "AVRO"),
        "recursive": foreign_id(mesh, "tree-value", json.dumps(tree), "AVRO"),
        "json-schema": foreign_id(mesh, "json-value", json.dumps(document), "JSON"),
    }


def test_each_kind_of_poison_becomes_one_dead_letter(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    schema_id = registered_id(mesh, product)
    good = encoded(product.schema, schema_id, order(1))
    poison: list[tuple[str, str, bytes | None]] = [
        ("tombstone", "null-value", None),
        ("empty", "no-schema-id", b""),
        ("short", "no-schema-id", good[:4]),
        ("json", "no-schema-id", b'{"id": "o1"}'),
        ("magic", "no-schema-id", b"\x01" + good[1:]),
        ("header-only", "undecodable", good[:5]),
        ("truncated", "undecodable", good[:-1]),
        ("trailing", "undecodable", good + b"\x00"),
        ("twice", "undecodable", good + good),
        ("union", "undecodable", header(schema_id) + b"\x04o1\x02\x08"),
        ("text", "undecodable", header(schema_id) + b"\x04\xff\xfe\x02\x00"),
        ("long-text", "undecodable", header(schema_id) + b"\xfe\xff\xff\xff\x0fo1\x02\x00"),
        *((f"unknown-{identity}", "unknown-schema", header(identity) + good[5:]) for identity in UNKNOWN_IDS),
        *((name, "foreign-schema", header(i) + good[5:]) for name, i in foreign_ids(mesh).items()),
    ]
    messages = events(mesh, product, map(order, range(300)))
    spread = len(messages) // len(poison)
    for place, (name, _, value) in enumerate(poison):
        messages.insert(place * (spread + 1), (name, value))
    send(mesh, product.topic, messages)

    assert caught_up(mesh).outcomes == {ORDERS: True}
    assert ids(mesh) == sorted(f"o{number}" for number in range(300))
    topic = Admin(mesh.environment.kafka_config()).topic(product.topic)
    letters = {str(key, "utf-8"): (headers, value) for headers, key, value in dead_letters(mesh, product) if key}
    assert len(letters) == len(dead_letters(mesh, product)) == len(poison)
    for name, reason, value in poison:
        headers, kept = letters[name]
        assert kept == value
        assert headers["headrace.reason"] == reason, name
        assert headers["headrace.topic"] == product.topic
        assert headers["headrace.topic-id"] == topic.id
        assert headers["headrace.partition"].isdigit()
        assert headers["headrace.offset"].isdigit()
        expected = None if value is None or reason == "no-schema-id" else str(struct.unpack(">I", value[1:5])[0])
        assert headers.get("headrace.schema-id") == expected, name
    assert_exactly_once(mesh)


def test_one_poison_message_among_many(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    body = encoded(product.schema, registered_id(mesh, product), {"id": "o", "amount": 1, "email": None})
    poisoned = MANY // 3
    send(mesh, product.topic, ((None, body[:-1] if number == poisoned else body) for number in range(MANY)))
    sink = caught_up(mesh)
    assert sink.outcomes == {ORDERS: True}
    assert query(mesh, f"SELECT count(*) FROM {ORDERS}") == [(MANY - 1,)]
    assert [headers["headrace.reason"] for headers, _, _ in dead_letters(mesh, product)] == ["undecodable"]
    assert sum(landed.letters for _, landed in sink.landed) == 1
    assert_exactly_once(mesh)


@pytest.mark.parametrize("good", [49, 0])
def test_a_batch_that_is_mostly_refused_stops_its_product_and_no_other(
    cluster: Cluster, tmp_path: Path, prefix: str, good: int
) -> None:
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: ORDER, RETURNS: ORDER})
    product, other = mesh.product(ORDERS), mesh.product(RETURNS)
    send(mesh, product.topic, events(mesh, product, map(order, range(good))), partition=0)
    send(mesh, product.topic, ((f"p{number}", b"{}") for number in range(100)), partition=0)
    send(mesh, other.topic, events(mesh, other, map(order, range(20))))
    sink = caught_up(mesh)
    assert sink.outcomes == {ORDERS: False, RETURNS: True}
    (stopped,) = sink.logged("stopped")
    assert stopped["what"] == f"100 of {100 + good} messages cannot be read (no-schema-id)"
    assert stopped["next"]
    assert sink.rows(ORDERS) == 0
    assert query(mesh, f"SELECT count(*) FROM {ORDERS}") == [(0,)]
    assert dead_letters(mesh, product) == []
    assert len(ids(mesh, RETURNS)) == 20


def test_fewer_than_a_hundred_refused_messages_stop_nothing(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    send(mesh, product.topic, ((f"p{number}", b"{}") for number in range(99)), partition=0)
    assert caught_up(mesh).outcomes == {ORDERS: True}
    assert len(dead_letters(mesh, product)) == 99
    assert_exactly_once(mesh)
