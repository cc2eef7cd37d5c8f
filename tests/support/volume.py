"""Many rows quickly: millions of small events sent, landed by a real sink, and proved in a process of its own.

Run as a module it is that process: it proves the products of a mesh and prints what it found and took.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Producer

from headrace.governance.verify import verify
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.apply import apply
from tests.support.meshes import ORDERS, Cluster, encoded, write_mesh
from tests.support.sinks import caught_up, registered_id

if TYPE_CHECKING:
    from headrace.schemas.mesh import Mesh

ROOT = Path(__file__).parents[2]
TICK = {
    "type": "record",
    "name": "Tick",
    "namespace": "shop",
    "fields": [{"name": "id", "type": "long"}, {"name": "amount", "type": "int"}],
}
# A block is sent to one partition at a time, with one call.
BLOCK_ROWS = 10_000
_QUEUED_ROWS = 300_000
_PARTITIONS = 2
_COMMIT_INTERVAL_S = 2.0


@dataclass(frozen=True)
class Proof:
    """What a process that proves a mesh found and took; ``peak_mb`` is the most memory that it had resident."""

    holds: bool
    events: int
    rows: int
    seconds: float
    peak_mb: float


def ticking(cluster: Cluster, root: Path, prefix: str) -> Mesh:
    """Apply a mesh whose one product has the smallest of events."""
    write_mesh(root, cluster.endpoints, prefix, {ORDERS: TICK}, _COMMIT_INTERVAL_S)
    mesh = load_mesh(root, environment="cluster")
    apply(mesh, lambda _: None)
    return mesh


def produce(mesh: Mesh, rows: int) -> None:
    """Send so many events, in blocks to the partitions in turn; a multiple of a block's."""
    product = mesh.product(ORDERS)
    schema_id = registered_id(mesh, product)
    block = [
        {"value": encoded(product.schema, schema_id, {"id": number, "amount": number % 100}), "key": str(number)}
        for number in range(BLOCK_ROWS)
    ]
    producer = Producer(
        {
            **mesh.environment.kafka_config(),
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 2 * _QUEUED_ROWS,
        }
    )
    for number in range(rows // BLOCK_ROWS):
        while len(producer) > _QUEUED_ROWS:
            producer.poll(0.01)
        assert producer.produce_batch(product.topic, block, partition=number % _PARTITIONS) == BLOCK_ROWS
    assert producer.flush(120) == 0


def grow(mesh: Mesh, rows: int) -> None:
    """Send so many events more, and land them."""
    produce(mesh, rows)
    landed = caught_up(mesh)
    assert landed.outcomes[ORDERS], landed.logs
    assert landed.rows(ORDERS) == rows


def prove(mesh: Mesh) -> Proof:
    """Prove a mesh in a process of its own, whose memory nothing else has touched."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.volume", str(mesh.root), mesh.environment.name],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Proof(**json.loads(done.stdout))


def _prove_here(root: Path, environment: str) -> Proof:
    mesh = load_mesh(root, environment=environment)
    began = time.perf_counter()
    audit = verify(mesh, mesh.products, lambda _: None)
    seconds = time.perf_counter() - began
    verdicts = [verdict for product in audit.products for verdict in product.verdicts]
    rows, events = sum(verdict.rows for verdict in verdicts), sum(verdict.events or 0 for verdict in verdicts)
    return Proof(audit.holds, events, rows, seconds, _peak_mb())


def _peak_mb() -> float:
    """Return the most memory that this program has had resident.

    ``getrusage`` would count what the process that started it had when it forked.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (peak_kb,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak_kb) / 1_024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_prove_here(Path(sys.argv[1]), sys.argv[2]))))
