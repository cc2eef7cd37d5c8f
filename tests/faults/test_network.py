"""A network that fails between sinks and their broker, in each way: nothing is lost, nothing is doubled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.meshes import ORDERS
from tests.support.sinks import running
from tests.support.storms import SESSION_S, Transactions, assert_all_there, seeded, stormy_mesh
from tests.support.waiting import eventually, lasting

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.meshes import Cluster
    from tests.support.proxied import Doors
    from tests.support.proxy import Proxy

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

# Longer than a member of the group may be silent.
AWAY_S = SESSION_S * 2
ATTEMPTS = 6


def cuts(proxy: Proxy, dice: random.Random) -> None:
    for _ in range(12):
        lasting(dice.uniform(0, 1))
        proxy.cut()


def cuts_in_mid_answer(proxy: Proxy, dice: random.Random) -> None:
    for _ in range(12):
        accepted = proxy.accepted
        # An answer to a fetch is some 50 kB here, any other one some hundred bytes.
        proxy.cut_after(dice.choice([1, 3, 40, 1_000, 20_000, 100_000]))
        assert eventually(lambda: proxy.accepted > accepted)  # noqa: B023


def refuses(proxy: Proxy, _: random.Random) -> None:
    with proxy.refusing():
        lasting(AWAY_S)


def swallows_everything(proxy: Proxy, _: random.Random) -> None:
    with proxy.stalled():
        lasting(AWAY_S)


def swallows_answers(proxy: Proxy, _: random.Random) -> None:
    """What is asked for is done, and nobody hears of it."""
    with proxy.stalled(requests=False):
        lasting(AWAY_S)


def swallows_requests(proxy: Proxy, _: random.Random) -> None:
    """What is asked for arrives when it is long given up."""
    with proxy.stalled(answers=False):
        lasting(AWAY_S)


def is_slow(proxy: Proxy, _: random.Random) -> None:
    proxy.delay(0.3)
    lasting(AWAY_S)


@pytest.mark.parametrize(
    "fails",
    [cuts, cuts_in_mid_answer, refuses, swallows_everything, swallows_answers, swallows_requests, is_slow],
    ids=lambda function: function.__name__,
)
def test_a_sink_behind_a_network_that_fails(
    cluster: Cluster, doors: Doors, tmp_path: Path, prefix: str, fails: Callable[[Proxy, random.Random], None]
) -> None:
    _, dice = seeded()
    mesh = stormy_mesh(cluster, tmp_path / "mesh", prefix)
    with Transactions(mesh) as sent, running(doors.through(mesh)) as sink:
        assert eventually(lambda: sink.rows(ORDERS) > 0), sink.logs
        noticed = False
        # A sink that has just landed all it has read waits for nothing while nothing comes: then once more.
        for _ in range(ATTEMPTS):
            fails(doors.kafka, dice)
            doors.kafka.pass_all()
            there = sink.rows(ORDERS)
            assert eventually(lambda: sink.rows(ORDERS) > there), sink.logs  # noqa: B023
            # Short cuts and a slow network are nothing to wait for.
            if noticed := bool(sink.logged("waiting")) or fails in (cuts, cuts_in_mid_answer, is_slow):
                break
    assert sink.outcomes == {ORDERS: True}
    assert noticed, "nobody noticed"
    assert_all_there(mesh, sent)


@pytest.mark.parametrize("fails", [refuses, swallows_everything], ids=lambda function: function.__name__)
def test_one_of_two_sinks_is_cut_off_and_comes_back(
    cluster: Cluster, doors: Doors, tmp_path: Path, prefix: str, fails: Callable[[Proxy, random.Random], None]
) -> None:
    """It still reaches the table, but not the group: what it has begun is refused, or landed before others began."""
    _, dice = seeded()
    mesh = stormy_mesh(cluster, tmp_path / "mesh", prefix)
    with Transactions(mesh) as sent, running(doors.through(mesh)) as cut_off, running(mesh) as other:
        assert eventually(lambda: cut_off.rows(ORDERS) > 0 and other.rows(ORDERS) > 0), (cut_off.logs, other.logs)
        fails(doors.kafka, dice)
        there = other.rows(ORDERS)
        assert eventually(lambda: other.rows(ORDERS) > there), other.logs
        there = cut_off.rows(ORDERS)
        assert eventually(lambda: cut_off.rows(ORDERS) > there), cut_off.logs
    assert cut_off.outcomes == other.outcomes == {ORDERS: True}
    assert_all_there(mesh, sent)
