"""``headrace sink`` with its pages and its JSON log, on real servers: they agree with ``verify``."""

from __future__ import annotations

import datetime as dt
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.governance.verify import verify
from headrace.schemas.catalog import open_catalog
from headrace.schemas.registry import Registry
from headrace.selfserve.main import main
from headrace.selfserve.metrics import Endpoint, Health, new_registry
from headrace.selfserve.sink_metrics import SinkMetrics
from headrace.sinks.hold import hold, release
from headrace.sinks.serve import ProductSink, Setting, serve
from tests.support.meshes import ORDER, ORDERS, Cluster, send
from tests.support.sinks import eventually
from tests.support.topics import publish, transaction, transactions_ended

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from headrace.sinks.landing import Step

FLIGHTS = "air.flights"
WAIT_S = 60.0


@dataclass
class Running:
    """A ``headrace sink`` in a process of its own."""

    popen: subprocess.Popen[str]
    log: Path
    url: str = ""

    def lines(self) -> list[dict[str, Any]]:
        """The log, each line parsed; all but a line that is being written."""
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def ask(self, path: str) -> tuple[int, str]:
        return asked(self.url + path)

    def health(self, path: str) -> tuple[int, list[dict[str, Any]]]:
        status, body = self.ask(path)
        return status, json.loads(body)["reasons"]

    def metric(self, name: str, product: str = ORDERS) -> float | None:
        return page_of(self.url).get((f"headrace_{name}", product))

    def refused(self, product: str = ORDERS) -> Mapping[str, float]:
        _, page = self.ask("/metrics")
        found = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
        return {
            sample.labels["reason"]: sample.value
            for sample in found
            if sample.name == "headrace_sink_dead_letters_total" and sample.labels["product"] == product
        }

    def ends(self, number: signal.Signals) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(WAIT_S)


def asked(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


def page_of(url: str) -> Mapping[tuple[str, str], float]:
    status, page = asked(f"{url}/metrics")
    assert status == 200
    parsed = text_string_to_metric_families(page)
    return {
        (sample.name, sample.labels["product"]): sample.value
        for family in parsed
        for sample in family.samples
        if set(sample.labels) == {"product"}
    }


def command(mesh: Mesh, *words: str) -> list[str]:
    start = [sys.executable, "-m", "headrace.selfserve.main", "--mesh", str(mesh.root), "--environment", "cluster"]
    return [*start, "sink", *words]


@contextmanager
def sinking(mesh: Mesh, *words: str) -> Iterator[Running]:
    log = mesh.root / "sink.log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command(mesh, "--metrics-port", "0", "--log-format", "json", *words), stderr=stderr, text=True
        ) as popen,
    ):
        running = Running(popen, log)

        def served() -> bool:
            found = re.search(r"metrics at (http://127\.0\.0\.1:\d+)/metrics", log.read_text())
            running.url = found[1] if found else ""
            return bool(found) or popen.poll() is not None

        try:
            assert eventually(served)
            assert running.url, log.read_text()
            yield running
        finally:
            popen.kill()


def asked_as_json(mesh: Mesh, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    main(["--mesh", str(mesh.root), "--environment", "cluster", *words, "--format", "json"])
    return json.loads(capsys.readouterr().out)


def assert_agreed(
    mesh: Mesh, running: Running, capsys: pytest.CaptureFixture[str], names: Sequence[str]
) -> Mapping[str, tuple[float, ...]]:
    """Check that the page, status and verify count the same for each product; return lag, rows and dead letters."""
    proofs = {each["product"]: each["partitions"] for each in asked_as_json(mesh, capsys, "verify", *names)["products"]}
    proved = {
        name: tuple(sum(each[field] for each in proofs[name]) for field in ("pending", "rows", "dead_lettered"))
        for name in names
    }
    shown = {
        each["product"]: (each["lag_rows"], each["rows"], each["dead_letters"])
        for each in asked_as_json(mesh, capsys, "status")["products"]
        if each["product"] in names
    }
    assert shown == proved

    def told() -> Mapping[str, tuple[float | None, ...]]:
        page = page_of(running.url)
        gauges = ("headrace_lag_rows", "headrace_table_rows", "headrace_dead_letters")
        return {name: tuple(page.get((gauge, name)) for gauge in gauges) for name in names}

    assert eventually(lambda: told() == proved), (told(), proved)
    return proved


def waits_for(running: Running, text: str) -> bool:
    status, reasons = running.health("/readyz")
    return status == 503 and any(text in reason["what"] and reason["next"] for reason in reasons)


def test_the_pages_of_a_sink_that_keeps_up_and_of_one_that_has_stopped(
    cluster: Cluster, tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: ORDER, FLIGHTS: ORDER})
    # More than half of a hundred messages cannot be read: this product stops, and leaves all of it behind.
    send(mesh, mesh.product(FLIGHTS).topic, [("k", b"poison")] * 120, partition=0)
    transaction(mesh, FLIGHTS, range(30), commit=False)
    transaction(mesh, FLIGHTS, range(30, 50), commit=True)
    assert eventually(lambda: transactions_ended(mesh, FLIGHTS))
    with sinking(mesh, ORDERS, FLIGHTS) as running:
        publish(mesh, ORDERS, range(200))
        transaction(mesh, ORDERS, range(200, 210), commit=False)
        transaction(mesh, ORDERS, range(210, 220), commit=True)
        send(mesh, mesh.product(ORDERS).topic, [("k", b"poison")] * 5)
        assert eventually(lambda: running.metric("sink_rows_total") == 210)
        assert eventually(lambda: running.refused() == {"no-schema-id": 5})
        assert eventually(lambda: running.metric("sink_stopped", FLIGHTS) == 1)
        agreed = assert_agreed(mesh, running, capsys, [ORDERS, FLIGHTS])
        assert agreed == {ORDERS: (0, 210, 5), FLIGHTS: (140, 0, 0)}
        assert running.metric("lag_seconds") == 0
        assert (running.metric("lag_seconds", FLIGHTS) or 0) > 0
        assert running.metric("sink_stopped") == 0
        assert running.metric("sink_waiting") == 0
        assert running.metric("sink_commit_seconds_count") == running.metric("sink_commits_total")
        assert time.time() - (running.metric("sink_last_commit_timestamp_seconds") or 0) < 600
        assert running.health("/healthz") == (200, [])
        status, (reason,) = running.health("/readyz")
        assert (status, reason["part"]) == (503, FLIGHTS)
        assert "120 of 140 messages cannot be read" in reason["what"]
        commits = running.metric("sink_commits_total")
        assert running.ends(signal.SIGTERM) == 1
    lines = running.lines()
    assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)
    said = [line["event"] for line in lines]
    assert "keeping 2 tables up to date; Ctrl-C stops" in said
    assert "stopping: what is open is committed first; Ctrl-C ends at once" in said
    committed = [line for line in lines if line["event"] == "committed"]
    assert len(committed) == commits
    assert sum(line["rows"] for line in committed) == 210
    assert all(line["product"] == ORDERS and line["snapshot"] and line["seconds"] > 0 for line in committed)
    (stopped,) = [line for line in lines if line["event"] == "stopped"]
    assert (stopped["level"], stopped["product"]) == ("error", FLIGHTS)
    assert "poison" not in running.log.read_text()


def test_a_sink_is_ready_once_it_has_its_partitions(mesh: Mesh) -> None:
    with sinking(mesh) as running:
        assert eventually(lambda: running.health("/readyz") == (200, []))
        assert running.health("/healthz") == (200, [])
        # Headrace's own products are served too, and are looked at.
        assert eventually(lambda: running.metric("lag_rows", "governance.findings") == 0)
        assert running.ends(signal.SIGINT) == 130
    assert [line["event"] for line in running.lines()][-1].startswith("interrupted")


@pytest.mark.parametrize("waiting", [0, 20], ids=["without events", "with events"])
def test_a_held_product_is_waited_for_until_it_is_released(mesh: Mesh, waiting: int) -> None:
    product = mesh.product(ORDERS)
    catalog = open_catalog(mesh.environment, mesh.domain_of(product))
    hold(catalog, product, "the lake moves", dt.datetime.now(dt.UTC))
    publish(mesh, ORDERS, range(waiting))
    with sinking(mesh, ORDERS) as running:
        assert eventually(lambda: waits_for(running, "held since"))
        assert eventually(lambda: running.metric("held") == 1 and running.metric("lag_rows") == waiting)
        assert running.health("/healthz") == (200, [])
        assert running.health("/readyz")[0] == 503
        release(catalog, product)
        assert eventually(lambda: running.health("/readyz") == (200, [])), running.health("/readyz")
        assert eventually(lambda: running.metric("sink_rows_total") == waiting)
        assert eventually(lambda: running.metric("held") == 0 and running.metric("lag_rows") == 0)


def test_a_port_that_is_taken_is_an_error_before_anything_starts(mesh: Mesh) -> None:
    publish(mesh, ORDERS, range(5))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ("--until-caught-up", "--metrics-port", str(port), "--log-format", "json")
        ran = subprocess.run(command(mesh, *words), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    (line,) = [json.loads(line) for line in ran.stderr.splitlines()]
    assert (line["level"], line["event"], line["where"]) == ("error", "failed", f"127.0.0.1:{port}")
    assert "--metrics-port" in line["next"]
    (audited,) = verify(mesh, [mesh.product(ORDERS)], lambda _: None).products
    assert sum(verdict.rows for verdict in audited.verdicts) == 0


def test_a_secret_that_is_missing_is_a_line_of_json_too(mesh: Mesh) -> None:
    (mesh.root / "hmac.key").unlink()
    ran = subprocess.run(command(mesh, "--log-format", "json"), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    failed = [json.loads(line) for line in ran.stderr.splitlines()][-1]
    assert (failed["event"], failed["level"]) == ("failed", "error")
    assert failed["next"]


def test_a_bug_in_one_product_makes_the_process_unhealthy(mesh: Mesh) -> None:
    registry, health = new_registry(), Health([ORDERS])

    def observe(step: Step) -> None:
        raise KeyError("ann@example.org")

    publish(mesh, ORDERS, range(5))
    with (
        Endpoint(registry, health) as endpoint,
        Registry(mesh.environment.registry_config()) as schemas,
    ):
        watcher = SinkMetrics(registry, health, [ORDERS])
        setting = Setting(
            mesh, mesh.product(ORDERS), schemas, mesh.environment.hmac_key(), watcher=watcher, observe=observe
        )
        assert asked(f"{endpoint.url}/healthz")[0] == 200
        assert not ProductSink(setting).run(threading.Event())
        for path in ("/healthz", "/readyz"):
            status, body = asked(f"{endpoint.url}{path}")
            assert status == 503
            assert "stopped by a bug of headrace (KeyError)" in body
            assert "ann@example.org" not in body
        assert page_of(endpoint.url)["headrace_sink_stopped", ORDERS] == 1


def test_a_sink_that_is_left_without_a_partition_is_ready_too(mesh: Mesh) -> None:
    stop, healths = threading.Event(), [Health([ORDERS]) for _ in range(3)]
    watchers = [SinkMetrics(new_registry(), health, [ORDERS]) for health in healths]
    with ThreadPoolExecutor(3) as threads:
        ended = [
            threads.submit(serve, mesh, [ORDERS], until_caught_up=False, stop=stop, watcher=watcher)
            for watcher in watchers
        ]
        try:
            # Two partitions, three sinks.
            assert eventually(lambda: not any(health.unready() for health in healths))
        finally:
            stop.set()
        assert all(sink.result(WAIT_S) for sink in ended)
