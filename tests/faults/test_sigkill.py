"""Real processes that are killed at each step of a landing, over and over: nothing is lost, nothing is doubled."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from headrace.sinks.landing import Step
from tests.support.meshes import ORDER, order, query, send
from tests.support.sinks import assert_exactly_once, events, eventually, process

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster
    from tests.support.sinks import Process

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

BURST = 40
# The first commit of a worker's life, and one in the middle of it. RELOAD comes twice a batch.
OCCURRENCES = (1, 3)


class Producing:
    """Sends bursts of events, one of each burst poison."""

    def __init__(self, mesh: Mesh, product: str) -> None:
        self._mesh = mesh
        self._product = mesh.product(product)
        self.bursts = 0

    def burst(self) -> None:
        first = self.bursts * BURST
        self.bursts += 1
        messages = events(self._mesh, self._product, (order(number) for number in range(first, first + BURST)))
        send(self._mesh, self._product.topic, [*messages, ("poison", b"no header")])


def went_on(worker: Process, seen: int) -> bool:
    return not worker.runs or len(worker.landed) > seen


def killed_at(mesh: Mesh, name: str, step: Step, folder: Path) -> int:
    """Have workers of a product killed at a step, one after the other, then one that completes; return the bursts."""
    producing = Producing(mesh, name)
    for occurrence in OCCURRENCES:
        fault = {"step": step, "occurrence": occurrence, "signal": "SIGKILL"}
        with process(mesh, name, folder / f"{step}-{occurrence}.log", **fault) as worker:
            # Each commit is followed by another burst, so that there is always one more landing to die in.
            while worker.runs:
                seen = len(worker.landed)
                producing.burst()
                assert eventually(partial(went_on, worker, seen))
            assert worker.wait() == -signal.SIGKILL
    with process(mesh, name, folder / f"{step}.log", until_caught_up=True) as worker:
        assert worker.wait() == 0, (folder / f"{step}.log").read_text()
    return producing.bursts


def test_workers_killed_at_every_step_lose_nothing_and_double_nothing(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    products = {step: f"shop.{step}" for step in Step}
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas=dict.fromkeys(products.values(), ORDER))
    with ThreadPoolExecutor(len(products)) as pool:
        futures = {name: pool.submit(killed_at, mesh, name, step, tmp_path) for step, name in products.items()}
        bursts = {name: future.result() for name, future in futures.items()}
    for name, count in bursts.items():
        rows = query(mesh, f"SELECT count(*), count(DISTINCT id), sum(amount)::BIGINT FROM {name}")
        total = count * BURST
        assert rows == [(total, total, total * (total - 1) // 2)], name
    assert_exactly_once(mesh)
