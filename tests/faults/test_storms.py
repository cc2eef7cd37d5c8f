"""Workers that die, join, leave and sleep at random while events stream in: nothing is lost, nothing is doubled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.storms import THINGS, Storm, Transactions, assert_all_there, let_sleepers_lie, seeded, stormy_mesh
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.meshes import Cluster

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

KILLS = 30
FEWER_KILLS = 10
STORM_S = 30.0


def test_thirty_workers_killed_at_random_moments(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    killed_at_random(cluster, tmp_path, prefix, KILLS)


def test_static_members_killed_at_random_moments(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    """Who comes in the place of a killed one has its partitions at once."""
    killed_at_random(cluster, tmp_path, prefix, FEWER_KILLS, static=True)


def killed_at_random(cluster: Cluster, tmp_path: Path, prefix: str, kills: int, *, static: bool = False) -> None:
    _, dice = seeded()
    mesh = stormy_mesh(cluster, tmp_path / "mesh", prefix)
    with Transactions(mesh) as sent, Storm(mesh, tmp_path, dice, 3, static=static) as storm:
        storm.kill_and_replace(kills, pause_s=1.5)
        before = storm.rows
        assert eventually(lambda: storm.rows > before), storm.logs()
    assert storm.done["kill"] == kills
    assert sent.aborted
    assert sent.poison
    assert_all_there(mesh, sent)


def test_four_workers_that_join_leave_sleep_and_die_all_the_time(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    _, dice = seeded()
    mesh = stormy_mesh(cluster, tmp_path / "mesh", prefix)
    let_sleepers_lie(mesh)
    with Transactions(mesh) as sent, Storm(mesh, tmp_path, dice) as storm:
        storm.blow(STORM_S, longest_sleep_s=8.0)
        before = storm.rows
        assert eventually(lambda: storm.rows > before), storm.logs()
    assert storm.done.keys() == THINGS
    assert_all_there(mesh, sent)
