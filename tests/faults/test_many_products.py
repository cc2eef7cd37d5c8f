"""One worker that serves forty small products: each is its own failure domain, and memory and threads are bounded."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.schemas.catalog import open_catalog
from headrace.sinks.hold import hold, release
from tests.support.meshes import ORDER, Cluster, send
from tests.support.sinks import assert_exactly_once, eventually
from tests.support.topics import publish

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.schemas.mesh import Mesh

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

PRODUCTS = 40
EVENTS = 100
NAMES = [f"domain{number // 10}.product{number}" for number in range(PRODUCTS)]
POISONED, FLOODED, HELD, *FINE = NAMES
POISON = [("k", b"poison")]
WITHIN_S = 180.0
# Measured: 8 threads a product, and 0.6 GiB in all.
MOST_THREADS_A_PRODUCT = 12
MOST_MIB = 1_200


@dataclass
class Worker:
    """A ``headrace sink`` of all products in a process of its own."""

    process: psutil.Process
    url: str

    def values(self, name: str) -> Mapping[str, float]:
        """Return a metric's values by product, summed over other labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=WITHIN_S) as answer:
            page = answer.read().decode()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == f"headrace_sink_{name}" and "product" in sample.labels:
                    product = sample.labels["product"]
                    found[product] = found.get(product, 0.0) + sample.value
        return found

    def ready(self) -> bool:
        """Tell whether it waits for nothing and no product has stopped."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=WITHIN_S) as answer:
                return bool(answer.status == 200)
        except HTTPError:
            return False

    def peak_mib(self) -> float:
        """Return the most memory that it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert peak is not None
        return int(peak[1]) / 1024


@contextmanager
def serving(mesh: Mesh, log: Path) -> Iterator[Worker]:
    """Serve all products while the block lasts."""
    command = [sys.executable, "-m", "headrace.selfserve.main", "--mesh", str(mesh.root), "--environment", "cluster"]
    with (
        log.open("w") as stderr,
        subprocess.Popen([*command, "sink", *NAMES, "--metrics-port", "0"], stderr=stderr) as popen,
    ):
        try:
            found: list[str] = []

            def served() -> bool:
                found[:] = re.findall(r"metrics at (http://127\.0\.0\.1:\d+)/metrics", log.read_text())
                return bool(found) or popen.poll() is not None

            assert eventually(served, within_s=WITHIN_S)
            assert found, log.read_text()
            yield Worker(psutil.Process(popen.pid), found[0])
            popen.send_signal(signal.SIGTERM)
            assert popen.wait(WITHIN_S) == 1, "a product had stopped"
        finally:
            popen.kill()


def test_forty_products_in_one_worker(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas=dict.fromkeys(NAMES, ORDER))
    held = mesh.product(HELD)
    hold(open_catalog(mesh.environment, mesh.domain_of(held)), held, "its table is moved", datetime.now(UTC))
    for name in NAMES:
        publish(mesh, name, range(EVENTS))
    send(mesh, mesh.product(POISONED).topic, POISON * 5)
    # More than half of a batch cannot be read: this one stops. In one partition it comes in one fetch.
    send(mesh, mesh.product(FLOODED).topic, POISON * 3 * EVENTS, partition=0)
    log = tmp_path / "sink.log"
    with serving(mesh, log) as worker:
        landing = [POISONED, *FINE]
        assert eventually(
            lambda: all(worker.values("rows_total")[name] == EVENTS for name in landing), within_s=WITHIN_S
        ), (worker.values("rows_total"), log.read_text()[-5_000:])
        assert eventually(lambda: worker.values("stopped")[FLOODED] == 1, within_s=WITHIN_S)
        assert eventually(lambda: worker.values("waiting")[HELD] == 1, within_s=WITHIN_S)
        assert worker.values("dead_letters_total") == {POISONED: 5}
        assert sum(worker.values("stopped").values()) == 1
        assert not worker.ready()
        # The others go on meanwhile.
        for name in FINE[:5]:
            publish(mesh, name, range(EVENTS, 2 * EVENTS))
        assert eventually(
            lambda: all(worker.values("rows_total")[name] == 2 * EVENTS for name in FINE[:5]), within_s=WITHIN_S
        )
        release(open_catalog(mesh.environment, mesh.domain_of(held)), held)
        assert eventually(lambda: worker.values("rows_total")[HELD] == EVENTS, within_s=WITHIN_S)
        assert worker.process.num_threads() <= MOST_THREADS_A_PRODUCT * PRODUCTS
        assert worker.peak_mib() <= MOST_MIB
    assert_exactly_once(mesh, POISONED, HELD, *FINE[:3])
