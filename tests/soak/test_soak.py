"""What takes long: run by ``make soak``, by hand. Each test adds a line to the summary at the end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.forked import process
from tests.support.meshes import ORDERS
from tests.support.servers import kill
from tests.support.sinks import ROOT, running
from tests.support.storms import Storm, Transactions, assert_all_there, let_sleepers_lie, seeded, stormy_mesh
from tests.support.topics import transactions_ended
from tests.support.volume import grow, prove, ticking
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.meshes import Cluster
    from tests.support.proxied import Doors, Proxied

    Tell = Callable[[str], None]

KILLS = 100
KILL_PAUSE_S = 12.0
STORM_S = 600.0
ASLEEP_S = 200.0
REGISTRY_AWAY_S = 70.0
RESTARTS = 5
ROWS = 100_000_000
FEWER_ROWS = 1_000_000


@pytest.mark.timeout(3600)
def test_a_hundred_workers_killed_at_random(cluster: Cluster, tmp_path: Path, prefix: str, tell: Tell) -> None:
    seed, dice = seeded()
    mesh = stormy_mesh(cluster, tmp_path / "mesh", prefix)
    began_s = time.monotonic()
    with Transactions(mesh, pace_s=0.2) as sent, Storm(mesh, tmp_path, dice) as storm:
        storm.kill_and_replace(KILLS, pause_s=KILL_PAUSE_S)
        before = storm.rows
        assert eventually(lambda: storm.rows > before), storm.logs()
    took_s = time.monotonic() - began_s
    assert storm.done["kill"] == KILLS
    assert_all_there(mesh, sent)
    tell(
        f"{KILLS} of four workers killed at random in {took_s:.0f} s (seed {seed}): {sent.sent:,} events and "
        f"{sent.poison:,} dead letters, {sent.aborted:,} transactions aborted; proved and counted"
    )


@pytest.mark.timeout(3600)
def test_workers_join_leave_sleep_and_die_for_ten_minutes(
    cluster: Cluster, tmp_path: Path, prefix: str, tell: Tell
) -> None:
    seed, dice = seeded()
    mesh = stormy_mesh(cluster, tmp_path / "mesh", prefix)
    let_sleepers_lie(mesh)
    with Transactions(mesh, pace_s=0.2) as sent, Storm(mesh, tmp_path, dice) as storm:
        storm.blow(STORM_S, longest_sleep_s=30.0)
        before = storm.rows
        assert eventually(lambda: storm.rows > before), storm.logs()
    assert_all_there(mesh, sent)
    things = ", ".join(f"{count} times {what}" for what, count in sorted(storm.done.items()))
    tell(f"a storm of {STORM_S:.0f} s over four workers (seed {seed}): {things}; {sent.sent:,} events, proved")


@pytest.mark.timeout(1800)
def test_a_worker_that_wakes_up_after_minutes(cluster: Cluster, tmp_path: Path, prefix: str, tell: Tell) -> None:
    mesh = stormy_mesh(cluster, tmp_path / "mesh", prefix)
    let_sleepers_lie(mesh)
    marker, log = tmp_path / "marker", tmp_path / "asleep.log"
    options = {"step": "commit", "occurrence": 3, "signal": "SIGSTOP", "marker": marker}
    with Transactions(mesh, pace_s=0.2) as sent, process(mesh, ORDERS, log, **options) as asleep:
        assert eventually(marker.exists), asleep.text()
        with process(mesh, ORDERS, tmp_path / "awake.log") as awake:
            until_s = time.monotonic() + ASLEEP_S
            assert eventually(lambda: bool(awake.landed) and time.monotonic() > until_s, within_s=ASLEEP_S + 60)
            landed = len(asleep.landed)
            asleep.signal(signal.SIGCONT)
            assert eventually(lambda: asleep.logged("stale: expected [")), asleep.text()
            assert eventually(lambda: len(asleep.landed) > landed), asleep.text()
    assert_all_there(mesh, sent)
    tell(f"a worker asleep before its commit for {ASLEEP_S:.0f} s: refused as stale, and then at work again; proved")


@pytest.mark.timeout(1800)
def test_a_registry_that_is_away_for_more_than_a_minute(
    cluster: Cluster, doors: Doors, tmp_path: Path, prefix: str, tell: Tell
) -> None:
    mesh = stormy_mesh(cluster, tmp_path / "mesh", prefix)
    with Transactions(mesh, pace_s=0.2) as sent, doors.registry.refusing(), running(doors.through(mesh)) as sink:
        until_s = time.monotonic() + REGISTRY_AWAY_S
        assert eventually(
            lambda: bool(sink.logged("waiting")) and time.monotonic() > until_s, within_s=REGISTRY_AWAY_S + 60
        ), sink.logs
        assert sink.rows(ORDERS) == 0
        doors.registry.pass_all()
        assert eventually(lambda: sink.rows(ORDERS) > 0), sink.logs
    assert_all_there(mesh, sent)
    tell(
        f"the registry away for {REGISTRY_AWAY_S:.0f} s before a schema was known: nothing refused, all landed; proved"
    )


@pytest.mark.timeout(1800)
def test_a_broker_that_is_killed_five_times(proxied: Proxied, tmp_path: Path, prefix: str, tell: Tell) -> None:
    mesh = stormy_mesh(proxied.cluster, tmp_path / "mesh", prefix)
    sent_in_all: list[Transactions] = []
    with running(mesh) as sink:
        for _ in range(RESTARTS):
            # Its transactions end before the broker does: whether the last one was committed must be known.
            with Transactions(mesh, after=sent_in_all[-1] if sent_in_all else None) as sent:
                there = sink.rows(ORDERS)
                assert eventually(lambda: sink.rows(ORDERS) > there + 1_000), sink.logs  # noqa: B023
            sent_in_all.append(sent)
            assert eventually(lambda: transactions_ended(mesh, ORDERS))
            kill(proxied.stack, "kafka")
            assert proxied.stack.up(die_with_parent=True, progress=lambda _: None) == proxied.cluster.endpoints
    assert sink.outcomes == {ORDERS: True}, sink.logs
    assert_all_there(mesh, sent_in_all[-1])
    tell(f"the broker killed and started again {RESTARTS} times in mid-stream: {sent_in_all[-1].sent:,} events; proved")


@pytest.mark.timeout(7200)
def test_a_hundred_million_rows_are_proved_in_bounded_memory(
    cluster: Cluster, tmp_path: Path, prefix: str, tell: Tell
) -> None:
    mesh = ticking(cluster, tmp_path / "mesh", prefix)
    grow(mesh, FEWER_ROWS)
    small = prove(mesh)
    began_s = time.monotonic()
    grow(mesh, ROWS - FEWER_ROWS)
    grown_s, began_s = time.monotonic() - began_s, time.monotonic()
    large = prove(mesh)
    took_s = time.monotonic() - began_s
    assert (large.holds, large.events, large.rows) == (True, ROWS, ROWS)
    assert large.peak_mb <= small.peak_mb * 1.1, (small, large)
    tell(
        f"{ROWS:,} rows sent and landed in {grown_s:.0f} s, proved in {took_s:.0f} s with {large.peak_mb:.0f} MB; "
        f"{FEWER_ROWS:,} rows took {small.peak_mb:.0f} MB"
    )


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("bench", ["freshness", "commits"])
def test_a_bench_runs_to_its_end(bench: str, tell: Tell) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{bench}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    tell(f"tests.bench.{bench}:\n" + "".join(f"    {line}\n" for line in done.stdout.splitlines()[-20:]))
