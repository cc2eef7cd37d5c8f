"""Sinks that join and leave while events stream in: partitions move, and each event is still committed once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.registry import Registry
from headrace.sinks.evolution import followed_version
from headrace.streams.history import read_ledger
from tests.support.meshes import ORDER, ORDERS, encoded, order, query, send
from tests.support.sinks import assert_exactly_once, caught_up, events, eventually, process, running
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from headrace.schemas.mesh import Mesh

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

BURST = 1_000
# At most this often: what streams in must be verified in the end, within a test's time.
PACE_S = 0.05
JOINING = 4


class Stream:
    """Events that go on coming, in bursts, until told to stop."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def _run(self) -> None:
        product = self._mesh.product(ORDERS)
        burst = events(self._mesh, product, map(order, range(BURST)))
        while not self._stop.wait(PACE_S):
            send(self._mesh, product.topic, burst)
            self.sent += BURST

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "it goes on sending"

    def goes_on(self, bursts: int = 4) -> bool:
        """Wait until some more bursts have been sent."""
        target = self.sent + bursts * BURST
        return eventually(lambda: self.sent >= target)


def test_sinks_join_and_leave_in_mid_stream(mesh: Mesh) -> None:
    with Stream(mesh) as stream, running(mesh) as steady:
        assert eventually(lambda: steady.rows(ORDERS) > 0)
        for _ in range(JOINING):
            with running(mesh) as passing:
                assert eventually(lambda: passing.rows(ORDERS) > 0)
            assert passing.outcomes == {ORDERS: True}
            assert stream.goes_on(1)
    assert steady.outcomes == {ORDERS: True}
    assert caught_up(mesh).outcomes == {ORDERS: True}
    assert query(mesh, f"SELECT count(*) FROM {ORDERS}") == [(stream.sent,)]
    assert_exactly_once(mesh)


def test_a_process_that_is_told_to_end_before_it_has_its_partitions_ends_well(mesh: Mesh, tmp_path: Path) -> None:
    for log in (tmp_path / f"{number}.log" for number in range(3)):
        with process(mesh, ORDERS, log) as early:
            early.signal(signal.SIGTERM)
            status = early.wait()
            assert status == 0, f"exit status {status}: {early.text()}"


def test_processes_join_leave_and_die_in_mid_stream(mesh: Mesh, tmp_path: Path) -> None:
    with Stream(mesh) as stream, ExitStack() as stack:
        first, second = (stack.enter_context(process(mesh, ORDERS, tmp_path / f"{name}.log")) for name in "ab")
        # Two partitions, two workers: both commit.
        assert first.lands(), first.log.read_text()
        assert second.lands(), second.log.read_text()
        third = stack.enter_context(process(mesh, ORDERS, tmp_path / "c.log"))
        first.signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        # Its partition is missed after the session's time-out, and goes to the third.
        assert third.lands(), third.log.read_text()
        second.signal(signal.SIGTERM)
        assert second.wait() == 0, second.log.read_text()
        assert stream.goes_on(1)
        third.signal(signal.SIGTERM)
        assert third.wait() == 0, third.log.read_text()
    assert caught_up(mesh).outcomes == {ORDERS: True}
    assert query(mesh, f"SELECT count(*) FROM {ORDERS}") == [(stream.sent,)]
    assert_exactly_once(mesh)


def test_sigterm_commits_what_is_open_and_ends(mesh: Mesh, tmp_path: Path) -> None:
    # A batch is due after an hour: only the stop can be what commits it.
    file = mesh.root / "mesh.yaml"
    file.write_text(file.read_text().replace("commit_interval_s: 0.2", "commit_interval_s: 3600"))
    product = mesh.product(ORDERS)
    newer = {**ORDER, "fields": [*ORDER["fields"], {"name": "note", "type": ["null", "string"], "default": None}]}
    schema = AvroSchema.parse(json.dumps(newer), where=ORDERS)
    with Registry(mesh.environment.registry_config()) as registry:
        schema_id = registry.register(product.subject, schema).id
    messages = events(mesh, product, map(order, range(500)))
    # That the sink has read the last event is seen from outside: the table follows its version at once.
    messages.append(("last", encoded(schema, schema_id, {**order(500), "note": "last"})))
    send(mesh, product.topic, messages, partition=0)
    catalog = open_catalog(mesh.environment, mesh.domain_of(product))
    log = tmp_path / "sink.log"
    command = [str(Path(sys.executable).with_name("headrace")), "--mesh", str(mesh.root), "--environment", "cluster"]
    with log.open("w") as output, subprocess.Popen([*command, "sink"], stderr=output, stdout=output) as sink:
        try:
            assert eventually(lambda: followed_version(load_table(catalog, product)) == 2), log.read_text()
            assert query(mesh, f"SELECT count(*) FROM {ORDERS}") == [(0,)]
            sink.send_signal(signal.SIGTERM)
            # It says ten seconds; a busy machine takes its time to end a process.
            assert sink.wait(PATIENCE_S) == 0, log.read_text()
        finally:
            sink.kill()
    assert query(mesh, f"SELECT count(*) FROM {ORDERS}") == [(501,)]
    ledger = read_ledger(load_table(catalog, product), product)
    assert ledger is not None
    assert ledger.next(0) == 501
    assert_exactly_once(mesh)
