"""How old an event is when its row can be queried, at a steady rate: 50,000 events a second, a commit each second.

Run it with ``python -m tests.bench.freshness``. It starts its own cluster in a temporary folder and a sink in a process
of its own, sends events in bursts of ten milliseconds, and then compares the timestamp of every row with the moment at
which the sink's commit was acknowledged. It prints percentiles; nothing is asserted, because machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from confluent_kafka import Producer

from headrace.schemas.catalog import load_table, open_catalog
from headrace.selfserve.stack.embedded import embedded_stack
from tests.bench.drain import COMMIT_INTERVAL_S, EVENT, some_events
from tests.support.meshes import ORDERS, Cluster, write_mesh
from tests.support.sinks import eventually

if TYPE_CHECKING:
    import numpy.typing as npt

    from headrace.schemas.mesh import Mesh

_BURST_S = 0.01
# The first commits wait for the group and for caches; a service runs for days.
_WARM_S = 5.0

# Notes, at each commit, when it was acknowledged and how far each partition is.
SINK = """
import json, signal, sys, threading, time
from pathlib import Path
from headrace.schemas.mesh import load_mesh
from headrace.sinks.serve import serve
from headrace.sinks.watch import Unwatched
class Commits(Unwatched):
    def landed(self, product, landed, seconds):
        at = {partition: position.next for partition, position in landed.ledger.positions.items()}
        print(json.dumps([time.time(), seconds, at]), file=notes, flush=True)
notes = open(sys.argv[2], "w")
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
mesh = load_mesh(Path(sys.argv[1]), environment="cluster")
serve(mesh, [str(product.name) for product in mesh.products], until_caught_up=False, stop=stop, watcher=Commits())
"""


@dataclass(frozen=True)
class Commit:
    """When a commit was acknowledged (seconds since 1970), the seconds that landing took, positions by partition."""

    at_s: float
    seconds: float
    positions: dict[int, int]


def send_steadily(mesh: Mesh, rate: int, seconds: float) -> int:
    """Send so many events a second for so long; return how many there were."""
    events, topic, count = some_events(mesh), mesh.product(ORDERS).topic, 0
    producer = Producer({**mesh.environment.kafka_config(), "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        due = int((now - began) * rate)
        for number in range(count, due):
            producer.produce(topic, events[number % len(events)], str(number % 100_000))
        count = due
        producer.poll(0)
        time.sleep(_BURST_S)
    assert producer.flush(60) == 0
    return count


def measure(cluster: Cluster, root: Path, rate: int, seconds: float) -> tuple[npt.NDArray[np.float64], list[Commit]]:
    """Return the age of every row at its commit, in seconds, without the first ones; and all commits."""
    mesh = cluster.applied(root, prefix="fresh.", schemas={ORDERS: EVENT})
    write_mesh(root, cluster.endpoints, "fresh.", {ORDERS: EVENT}, COMMIT_INTERVAL_S)
    commits: list[Commit] = []
    notes = root / "commits.jsonl"
    arguments = [sys.executable, "-c", SINK, str(root), str(notes)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as worker:
        count = send_steadily(mesh, rate, seconds)

        def landed() -> bool:
            lines = notes.read_text().splitlines() if notes.exists() else []
            commits[:] = [
                Commit(at_s, took_s, {int(p): n for p, n in at.items()}) for at_s, took_s, at in map(json.loads, lines)
            ]
            return bool(commits) and sum(commits[-1].positions.values()) >= count

        assert eventually(landed, within_s=120), "the sink does not catch up"
        worker.terminate()
    return ages(mesh, commits), commits


def ages(mesh: Mesh, commits: list[Commit]) -> npt.NDArray[np.float64]:
    """Return how old each row was when its commit was acknowledged, in seconds, without the first seconds' rows."""
    product = mesh.product(ORDERS)
    table = load_table(open_catalog(mesh.environment, mesh.domain_of(product)), product)
    rows = table.scan(selected_fields=("_kafka_partition", "_kafka_offset", "_kafka_timestamp")).to_arrow()
    partitions, offsets = rows["_kafka_partition"].to_numpy(), rows["_kafka_offset"].to_numpy()
    written_s = rows["_kafka_timestamp"].to_numpy().astype("datetime64[ms]").astype(np.int64) / 1_000
    at_s = np.array([commit.at_s for commit in commits])
    found = []
    for partition in np.unique(partitions):
        chosen = partitions == partition
        ends = np.array([commit.positions.get(int(partition), 0) for commit in commits])
        found.append(at_s[np.searchsorted(ends, offsets[chosen], side="right")] - written_s[chosen])
    warm = np.concatenate([written_s[partitions == p] for p in np.unique(partitions)]) > written_s.min() + _WARM_S
    kept: npt.NDArray[np.float64] = np.concatenate(found)[warm]
    return kept


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        root = Path(folder)
        stack = embedded_stack(root / "cluster")
        cluster = Cluster(stack.up(die_with_parent=True, progress=lambda _: None))
        try:
            found, commits = measure(cluster, root / "mesh", options.rate, options.seconds)
        finally:
            stack.down(lambda _: None)
    took_s = np.array([commit.seconds for commit in commits])
    print(f"{len(found):,} rows at {options.rate:,} a second, {len(commits)} commits")
    for name, values in (("age of a row at its commit", found), ("from a batch's turn to its commit", took_s)):
        shown = "   ".join(f"p{p:g} {np.percentile(values, p):.3f} s" for p in (50, 90, 99, 99.9, 100))
        print(f"{name}: {shown}")


if __name__ == "__main__":
    main()
