"""The sink against a real broker and registry, its tables read by DuckDB."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from headrace.schemas.registry import Registry
from headrace.sinks.serve import serve
from tests.support.meshes import ORDERS, encoded, ids, order, query, send

if TYPE_CHECKING:
    from headrace.schemas.mesh import Mesh


def catch_up(mesh: Mesh) -> bool:
    """Run the sinks of a mesh until caught up."""
    return serve(mesh, [], until_caught_up=True, stop=threading.Event())


def test_each_event_becomes_one_masked_row(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    with Registry(mesh.environment.registry_config()) as registry:
        found = registry.lookup(product.subject, product.schema)
    assert found is not None
    messages = [(f"o{n}", encoded(product.schema, found.id, order(n))) for n in range(1000)]
    send(mesh, product.topic, messages)
    assert catch_up(mesh)
    assert ids(mesh) == sorted(f"o{n}" for n in range(1000))
    emails = query(mesh, f"SELECT count(email), count(DISTINCT email), max(email) FROM {ORDERS}")
    assert emails[0][:2] == (500, 500)
    assert "@" not in emails[0][2]
    assert catch_up(mesh)
    assert len(ids(mesh)) == 1000
