"""The example's voucher worker, killed at random moments: no voucher doubled in its table, and none lost."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.sinks import eventually
from tests.support.vouchers import Inputs, airline, in_table, in_topic, worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.meshes import Cluster

KILLS = 5


@pytest.mark.timeout(600)
def test_killed_at_random_moments_it_ends_with_exactly_the_vouchers_that_are_due(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    dice = random.Random(seed)
    mesh = airline(tmp_path / "airline", cluster.endpoints, prefix)
    inputs = Inputs.of(3_000)
    due = inputs.vouchers()
    assert len(due) > 150
    for kill in range(KILLS):
        with worker(mesh) as running:
            # In every other round it is killed on its way up, or where it is by then.
            on_the_way_up = kill % 2 == 1
            if not on_the_way_up:
                assert running.ready(), running.text()
            inputs.part(kill, KILLS + 1).publish(mesh, f"part {kill}")
            time.sleep(dice.uniform(0, 8 if on_the_way_up else 1))
            running.popen.send_signal(signal.SIGKILL)
            assert running.ends() == -signal.SIGKILL, running.text()
    with worker(mesh) as running:
        assert running.ready(), running.text()
        inputs.part(KILLS, KILLS + 1).publish(mesh, "the last part")
        assert eventually(lambda: in_topic(mesh) >= len(due), within_s=240), (seed, running.text())
        running.popen.send_signal(signal.SIGINT)
        assert running.ends() == 0, running.text()
    assert in_table(mesh) == due, f"seed {seed}"
