"""Versions of a schema, mixed in one topic, read by two sinks at once: one table, each value in its column."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from confluent_kafka.schema_registry import Schema

from headrace.schemas.avro import AvroSchema
from headrace.schemas.registry import Registry
from tests.support.meshes import ORDER, ORDERS, encoded, ids, query, send
from tests.support.registries import registry_client
from tests.support.sinks import assert_exactly_once, caught_up, eventually, running

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster

RETURNS = "shop.returns"
V1 = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "id", "type": "string"}, {"name": "amount", "type": "int"}],
}
V2 = {
    **V1,
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "amount", "type": "long"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "tier", "type": "string", "default": "basic"},
    ],
}
V3 = {
    **V2,
    "fields": [*V2["fields"], {"name": "mail", "type": ["null", "string"], "default": None, "confluent:tags": ["PII"]}],
}
BIG = 1 << 40


def register(mesh: Mesh, name: str, schema: Mapping[str, Any]) -> tuple[AvroSchema, int]:
    """Register a version of a product's subject."""
    parsed = AvroSchema.parse(json.dumps(schema), where=name)
    with Registry(mesh.environment.registry_config()) as registry:
        return parsed, registry.register(mesh.product(name).subject, parsed).id


def test_two_sinks_follow_versions_that_come_mixed(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: V1})
    product = mesh.product(ORDERS)
    versions = [register(mesh, ORDERS, V1)]

    def message(number: int) -> tuple[str, bytes]:
        schema, schema_id = versions[number % len(versions)]
        event = {"id": f"o{number}", "amount": number + (BIG if number % len(versions) else 0)}
        event |= {"note": f"n{number}", "tier": "gold", "mail": f"ann{number}@example.org"}
        names = {field["name"] for field in schema.document["fields"]}
        return f"o{number}", encoded(schema, schema_id, {name: event[name] for name in names})

    with running(mesh, [ORDERS, ORDERS]) as sinks:
        send(mesh, product.topic, map(message, range(300)))
        assert eventually(lambda: sinks.rows(ORDERS) == 300)
        versions.append(register(mesh, ORDERS, V2))
        send(mesh, product.topic, map(message, range(300, 600)))
        assert eventually(lambda: sinks.rows(ORDERS) == 600)
        versions.append(register(mesh, ORDERS, V3))
        send(mesh, product.topic, map(message, range(600, 900)))
        assert eventually(lambda: sinks.rows(ORDERS) == 900)
    assert len(ids(mesh)) == 900
    wrong = query(
        mesh,
        f"""
        WITH seen AS (
            SELECT id[2:]::BIGINT AS n, *, CASE WHEN n < 300 THEN 0 WHEN n < 600 THEN n % 2 ELSE n % 3 END AS version
            FROM {ORDERS}
        )
        SELECT n, version, amount, note, tier, mail FROM seen
        WHERE amount <> n + CASE WHEN version > 0 THEN {BIG} ELSE 0 END
           OR note IS DISTINCT FROM CASE WHEN version > 0 THEN 'n' || n END
           OR (version > 0 AND tier <> 'gold') OR (version = 0 AND n >= 300 AND tier <> 'basic')
           OR mail IS NOT NULL
        """,
    )
    assert wrong == []
    columns = [row[0] for row in query(mesh, f"DESCRIBE {ORDERS}")]
    assert [name for name in columns if not name.startswith("_")] == ["id", "amount", "note", "tier", "mail"]
    assert_exactly_once(mesh)


def test_a_version_that_no_table_can_follow_stops_its_product_and_no_other(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: V1, RETURNS: ORDER})
    product, other = mesh.product(ORDERS), mesh.product(RETURNS)
    schema, schema_id = register(mesh, ORDERS, V1)
    send(mesh, product.topic, [("o1", encoded(schema, schema_id, {"id": "o1", "amount": 1}))], partition=0)
    assert all(caught_up(mesh).outcomes.values())

    client = registry_client(mesh.environment.registry_config())
    client.set_compatibility(product.subject, "NONE")
    text = {**V1, "fields": [V1["fields"][0], {"name": "amount", "type": "string"}]}
    changed_id = client.register_schema(product.subject, Schema(json.dumps(text), "AVRO"))
    client.close()
    changed = AvroSchema.parse(json.dumps(text), where=ORDERS)
    send(mesh, product.topic, [("o2", encoded(schema, schema_id, {"id": "o2", "amount": 2}))], partition=0)
    send(mesh, product.topic, [("o3", encoded(changed, changed_id, {"id": "o3", "amount": "3"}))], partition=0)
    other_schema, other_id = register(mesh, RETURNS, ORDER)
    event = {"id": "r1", "amount": 1, "email": None}
    send(mesh, other.topic, [("r1", encoded(other_schema, other_id, event))])

    sink = caught_up(mesh)
    assert sink.outcomes == {ORDERS: False, RETURNS: True}
    (stopped,) = sink.logged("stopped")
    assert "cannot follow version 2" in stopped["what"]
    assert "amount" in stopped["what"]
    assert stopped["next"]
    assert ids(mesh, RETURNS) == ["r1"]
    assert ids(mesh) == ["o1"]


def test_a_field_stays_masked_when_the_registry_loses_the_version_that_tagged_it(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    mail = {"name": "mail", "type": ["null", "string"], "default": None}
    plain = {**V1, "fields": [*V1["fields"], mail]}
    tagged = {**V1, "fields": [*V1["fields"], {**mail, "confluent:tags": ["PII", "user.contact.email"]}]}
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: tagged})
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: plain})
    product = mesh.product(ORDERS)
    schema, schema_id = register(mesh, ORDERS, plain)
    client = registry_client(mesh.environment.registry_config())
    assert len(client.get_versions(product.subject)) == 2
    client.delete_version(product.subject, 1)
    client.delete_version(product.subject, 1, permanent=True)
    client.close()

    event = {"id": "o1", "amount": 1, "mail": "ann@example.org"}
    send(mesh, product.topic, [("o1", encoded(schema, schema_id, event))])
    assert caught_up(mesh).outcomes == {ORDERS: True}
    ((found,),) = query(mesh, f"SELECT mail FROM {ORDERS}")
    assert found is None or "@" not in found


def test_a_field_that_a_new_version_tags_is_masked_by_sinks_that_run_already(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    mail = {"name": "mail", "type": ["null", "string"], "default": None}
    plain = {**V1, "fields": [*V1["fields"], mail]}
    tagged = {**V1, "fields": [*V1["fields"], {**mail, "confluent:tags": ["PII", "user.contact.email"]}]}
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: plain})
    product = mesh.product(ORDERS)
    schema, schema_id = register(mesh, ORDERS, plain)

    def message(number: int) -> tuple[str, bytes]:
        event = {"id": f"o{number}", "amount": number, "mail": f"ann{number}@example.org"}
        return f"o{number}", encoded(schema, schema_id, event)

    with running(mesh) as sink:
        send(mesh, product.topic, map(message, range(10)))
        assert eventually(lambda: sink.rows(ORDERS) == 10)
        cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: tagged})
        # The producer goes on with the version that it has always used.
        send(mesh, product.topic, map(message, range(10, 20)))
        assert eventually(lambda: sink.rows(ORDERS) == 20)
    assert query(mesh, f"SELECT count(*) FROM {ORDERS} WHERE amount >= 10 AND mail LIKE '%@%'") == [(0,)]
    assert query(mesh, f"SELECT count(DISTINCT mail) FROM {ORDERS} WHERE amount >= 10") == [(10,)]
