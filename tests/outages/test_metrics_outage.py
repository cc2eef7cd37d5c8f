"""``headrace sink``'s pages while a server is away."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_metrics import sinking, waits_for
from tests.support.meshes import ORDERS, Cluster, encoded, order, send
from tests.support.servers import kill
from tests.support.sinks import eventually, registered_id
from tests.support.topics import publish

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.selfserve.stack.embedded import EmbeddedStack


# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)


def test_a_broker_that_is_away_is_waited_for_and_its_return_is_noticed_without_an_event(
    stack: EmbeddedStack, own: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = own.applied(tmp_path / "mesh", prefix=prefix)
    with sinking(mesh, ORDERS) as running:
        publish(mesh, ORDERS, range(10))
        assert eventually(lambda: running.metric("table_rows") == 10 and running.metric("lag_rows") == 0)
        assert eventually(lambda: running.health("/readyz") == (200, []))
        kill(stack, "kafka")
        assert eventually(lambda: waits_for(running, "Kafka does not answer"))
        assert eventually(lambda: running.metric("sink_waiting") == 1)
        assert running.health("/healthz") == (200, [])
        # What cannot be known is left out; what the table says is still there.
        assert eventually(lambda: running.metric("lag_rows") is None and running.metric("table_rows") == 10)
        stack.up(die_with_parent=True, progress=lambda _: None)
        assert eventually(lambda: running.health("/readyz") == (200, [])), running.health("/readyz")
        assert eventually(lambda: running.metric("sink_waiting") == 0)
        assert eventually(lambda: running.metric("lag_rows") == 0)
        publish(mesh, ORDERS, range(10))
        assert eventually(lambda: running.metric("sink_rows_total") == 20)
        assert running.ends(signal.SIGTERM) == 0
    said = [line["event"] for line in running.lines()]
    assert "waiting" in said
    assert "going on" in said[said.index("waiting") :]


def test_a_registry_that_is_away_when_a_schema_must_be_asked_for_is_waited_for(
    stack: EmbeddedStack, own: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = own.applied(tmp_path / "mesh", prefix=prefix)
    product = mesh.product(ORDERS)
    schema_id = registered_id(mesh, product)
    with sinking(mesh, ORDERS) as running:
        assert eventually(lambda: running.health("/readyz") == (200, []))
        kill(stack, "registry")
        send(mesh, product.topic, ((f"o{n}", encoded(product.schema, schema_id, order(n))) for n in range(20)))
        assert eventually(lambda: waits_for(running, "the schema registry does not answer"))
        # Kafka answers all the while: how much waits is known.
        assert eventually(lambda: running.metric("lag_rows") == 20)
        stack.up(die_with_parent=True, progress=lambda _: None)
        assert eventually(lambda: running.health("/readyz") == (200, [])), running.health("/readyz")
        assert eventually(lambda: running.metric("sink_rows_total") == 20)
        assert eventually(lambda: running.metric("lag_rows") == 0)
        assert running.ends(signal.SIGTERM) == 0
