"""A broker that is away for a while: a subscriber waits, says so, and goes on without a gap and without a repeat."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from headrace.streams.subscriber import Reading, Start, Subscriber
from tests.support.meshes import ORDERS, Cluster, order, send
from tests.support.sinks import caught_up, events, eventually
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from headrace.selfserve.stack.embedded import EmbeddedStack

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

# One stack for all of them, in one process of the test run.


def publish(mesh: Mesh, numbers: range) -> None:
    product = mesh.product(ORDERS)
    send(mesh, product.topic, events(mesh, product, map(order, numbers)))


@pytest.mark.parametrize("grouped", [True, False])
def test_a_broker_killed_in_mid_stream_is_waited_for(
    stack: EmbeddedStack, tmp_path: Path, prefix: str, *, grouped: bool
) -> None:
    own = Cluster(stack.up(die_with_parent=True, progress=lambda _: None))
    mesh = own.applied(tmp_path / "mesh", prefix=prefix)
    publish(mesh, range(100))
    assert caught_up(mesh).outcomes == {ORDERS: True}
    found: list[int] = []
    group = prefix if grouped else None

    def read() -> None:
        with Subscriber(mesh, ORDERS, group=group, start=Start.HISTORY, reading=Reading()) as subscriber:
            for event in subscriber:
                found.append(event["amount"])
                if event["amount"] == 199:
                    return

    with capture_logs() as logs:
        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        assert eventually(lambda: len(found) == 100)
        (kafka,) = [status for status in stack.status() if status.name == "kafka"]
        assert kafka.pid is not None
        os.kill(kafka.pid, signal.SIGKILL)
        assert eventually(lambda: any(line["event"] == "waiting" for line in list(logs)))
        assert stack.up(die_with_parent=True, progress=lambda _: None) == own.endpoints
        publish(mesh, range(100, 199))
        assert eventually(lambda: len(found) >= 199), (len(found), logs)
        publish(mesh, range(199, 200))
        reading.join(PATIENCE_S)
    assert not reading.is_alive()
    assert sorted(found) == list(range(200))
