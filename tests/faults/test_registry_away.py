"""A registry that is away when its answer is needed, in each way: nothing is refused for it, and all lands after."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.registry import Registry
from tests.support.meshes import ORDER, ORDERS, encoded, ids, order, send
from tests.support.sinks import assert_exactly_once, dead_letters, events, running
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from headrace.schemas.mesh import Mesh
    from tests.support.proxied import Doors

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

NOTE = {"name": "note", "type": ["null", "string"], "default": None}
NEWER = {**ORDER, "fields": [*ORDER["fields"], NOTE]}
AWAY_S = 20.0


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "says nothing"])
def test_a_registry_that_is_away_for_a_while(mesh: Mesh, doors: Doors, *, silent: bool) -> None:
    product = mesh.product(ORDERS)
    newer = AvroSchema.parse(json.dumps(NEWER), where=ORDERS)
    with Registry(mesh.environment.registry_config()) as registry:
        schema_id = registry.register(product.subject, newer).id
    with running(doors.through(mesh)) as sink:
        send(mesh, product.topic, events(mesh, product, map(order, range(50))))
        assert eventually(lambda: sink.rows(ORDERS) == 50), sink.logs
        registered = mesh_with_another_version(mesh, newer)
        with doors.registry.stalled() if silent else doors.registry.refusing():
            away_until_s = time.monotonic() + AWAY_S
            for some_id, numbers in ((registered, range(50, 60)), (schema_id, range(60, 100))):
                bodies = [{**order(n), "note": "new"} for n in numbers]
                send(mesh, product.topic, [(b["id"], encoded(newer, some_id, b)) for b in bodies], partition=0)
            assert eventually(lambda: bool(sink.logged("waiting")) and time.monotonic() > away_until_s), sink.logs
            assert sink.rows(ORDERS) == 50
        assert eventually(lambda: sink.rows(ORDERS) == 100), sink.logs
    assert any(line["what"].startswith("the schema registry does not answer") for line in sink.logged("waiting"))
    assert ids(mesh) == sorted(f"o{number}" for number in range(100))
    assert dead_letters(mesh, product) == []
    assert_exactly_once(mesh)


def mesh_with_another_version(mesh: Mesh, newer: AvroSchema) -> int:
    """Register one more version, whose id no sink has asked for yet; its events look like the newer one's."""
    grown = {**NEWER, "doc": "once more"}
    with Registry(mesh.environment.registry_config()) as registry:
        schema = AvroSchema.parse(json.dumps(grown), where=ORDERS)
        return registry.register(mesh.product(ORDERS).subject, schema).id
