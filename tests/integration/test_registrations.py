"""Reading subjects as the auditor does: whatever somebody has put there is seen, and nothing is remembered too long."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from headrace.governance.registrations import Registration, Registrations
from tests.support.meshes import ORDER, ORDERS
from tests.support.registries import registry_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.mesh import Mesh


@pytest.fixture
def registrations(mesh: Mesh) -> Iterator[Registrations]:
    with Registrations(mesh.environment.registry_config()) as registrations:
        yield registrations


@pytest.fixture
def client(mesh: Mesh) -> SchemaRegistryClient:
    """Somebody who knows nothing of headrace, and has taken all checks away."""
    client = registry_client(mesh.environment.registry_config())
    client.set_compatibility(mesh.product(ORDERS).subject, "NONE")
    return client


@pytest.mark.parametrize(
    "foreign",
    [
        Schema('"string"', "AVRO"),
        Schema('{"type": "object", "properties": {"x": {"type": "string"}}}', "JSON"),
        Schema(
            '{"type":"record","name":"Node","fields":[{"name":"next","type":["null","Node"],"default":null}]}', "AVRO"
        ),
    ],
    ids=["no record", "no Avro", "recursive"],
)
def test_a_version_that_no_table_could_follow_is_seen(
    mesh: Mesh, registrations: Registrations, client: SchemaRegistryClient, foreign: Schema
) -> None:
    product = mesh.product(ORDERS)
    schema_id = client.register_schema(product.subject, foreign)
    found = registrations.look(product)
    assert found.subject is not None
    first, second = found.subject.versions
    assert (first.schema_id, first.pii) == (found.contract_id, ("email",))
    # Nothing of it becomes a column, so those of the version before it are the tagged ones still.
    assert (second.version, second.schema_id, second.deleted, second.pii) == (2, schema_id, False, ("email",))
    assert found.subject.compatibility == "NONE"


def test_each_step_of_deleting_is_seen_at_the_next_look(
    mesh: Mesh, registrations: Registrations, client: SchemaRegistryClient
) -> None:
    product = mesh.product(ORDERS)
    client.register_schema(product.subject, Schema(json.dumps({**ORDER, "fields": ORDER["fields"][:2]}), "AVRO"))

    def versions() -> list[tuple[int, bool]]:
        subject = registrations.look(product).subject
        return [(version.version, version.deleted) for version in subject.versions] if subject else []

    assert versions() == [(1, False), (2, False)]
    client.delete_version(product.subject, 2)
    assert versions() == [(1, False), (2, True)]
    client.delete_version(product.subject, 2, permanent=True)
    assert versions() == [(1, False)]
    assert registrations.look(product).contract_id is not None
    client.delete_version(product.subject, 1)
    assert versions() == [(1, True)]
    assert registrations.look(product).contract_id is None
    client.delete_subject(product.subject, permanent=True)
    assert registrations.look(product) == Registration(None, None)
