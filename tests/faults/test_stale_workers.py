"""Workers that are frozen for longer than their group waits for them, and wake up when others have gone on."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from headrace.sinks.landing import Step
from tests.support.forked import process
from tests.support.meshes import ORDERS
from tests.support.storms import SESSION_S, Transactions, assert_all_there, let_sleepers_lie, stormy_mesh
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked import Process
    from tests.support.meshes import Cluster

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

ASLEEP_S = SESSION_S * 3
# One worker for each step, and one that stays awake: each may have a partition.
PARTITIONS = len(Step) + 1


def test_workers_that_fall_asleep_at_each_step_of_a_landing(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = stormy_mesh(cluster, tmp_path / "mesh", prefix, partitions=PARTITIONS)
    let_sleepers_lie(mesh)
    with Transactions(mesh) as sent, ExitStack() as stack:
        awake = stack.enter_context(process(mesh, ORDERS, tmp_path / "awake.log"))
        frozen: list[tuple[Path, Process]] = []
        for step in Step:
            marker = tmp_path / f"{step}.marker"
            options = {"step": step, "occurrence": 2, "signal": "SIGSTOP", "marker": marker}
            frozen.append((marker, stack.enter_context(process(mesh, ORDERS, tmp_path / f"{step}.log", **options))))
        for marker, each in frozen:
            assert eventually(marker.exists), each.text()
        asleep_since_s, before = time.monotonic(), len(awake.landed)
        assert eventually(lambda: len(awake.landed) > before and time.monotonic() > asleep_since_s + ASLEEP_S), (
            f"transaction {sent.last}, {awake.text()}"
        )
        landed = [len(each.landed) for _, each in frozen]
        for _, each in frozen:
            each.signal(signal.SIGCONT)
        # Each finds that its partitions are others' now, starts from the ledger again, and lands.
        for (_, each), count in zip(frozen, landed, strict=True):
            assert eventually(lambda: len(each.landed) > count), each.text()  # noqa: B023
        for _, each in frozen:
            each.signal(signal.SIGTERM)
        for _, each in frozen:
            assert each.wait() == 0, each.text()
    assert_all_there(mesh, sent)
