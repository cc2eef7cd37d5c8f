"""How fast the sink drains a topic, beside a bare ``consume`` loop on the same topic in the same run.

Run it with ``make bench``. It starts its own cluster in a temporary folder, sends small Avro events (about 100 bytes),
then measures in turn, several times: a loop that only calls ``consume``, as librdkafka comes out of the box; the same
loop with the sink's own fetch settings, the hardest reference there is; and the sink with its tables. It prints the
rates and the ratios; nothing is asserted, because machines differ and are noisy.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Producer

from headrace.schemas.registry import Registry
from headrace.selfserve.stack.embedded import embedded_stack
from headrace.streams.reader import CONSUMER_DEFAULTS
from tests.support.meshes import ORDERS, Cluster, encoded, write_mesh

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.mesh import Mesh

EVENT = {
    "type": "record",
    "name": "Order",
    "namespace": "bench",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "customer", "type": "long"},
        {"name": "amount", "type": "double"},
        {"name": "currency", "type": {"type": "enum", "name": "Currency", "symbols": ["EUR", "USD", "GBP"]}},
        {"name": "placed_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}
# The embedded environment's.
COMMIT_INTERVAL_S = 1.0


def fill(cluster: Cluster, root: Path, prefix: str, count: int) -> None:
    """Send the events: a few thousand different ones, over and over."""
    mesh = cluster.applied(root, prefix=prefix, schemas={ORDERS: EVENT})
    product = mesh.product(ORDERS)
    events = some_events(mesh)
    print(f"{count:,} events of {statistics.mean(map(len, events)):.0f} bytes", flush=True)
    producer = Producer(
        {**mesh.environment.kafka_config(), "linger.ms": 20, "queue.buffering.max.messages": 500_000, "acks": "all"}
    )
    for number in range(count):
        while True:
            try:
                producer.produce(product.topic, events[number % len(events)], str(number % 100_000))
                break
            except BufferError:
                producer.poll(0.05)
        if not number % 10_000:
            producer.poll(0)
    assert producer.flush(60) == 0


def some_events(mesh: Mesh) -> list[bytes]:
    """Return 5,000 different events of an applied mesh of `EVENT`, in the wire format."""
    product = mesh.product(ORDERS)
    with Registry(mesh.environment.registry_config()) as registry:
        registered = registry.lookup(product.subject, product.schema)
    assert registered is not None
    return [
        encoded(
            product.schema,
            registered.id,
            {
                "id": f"order-{number:012d}-{number * 7919:020d}",
                "customer": number * 104_729,
                "amount": number * 0.07,
                "currency": ("EUR", "USD", "GBP")[number % 3],
                "placed_at": 1_700_000_000_000_000 + number * 1_000,
                "note": f"note {number} for the courier" if number % 4 else None,
            },
        )
        for number in range(5_000)
    ]


def bare(bootstrap: str, topic: str, count: int, settings: Mapping[str, str]) -> float:
    """Return the seconds that a bare consume loop takes, from joining its group to the last message."""
    consumer = Consumer(
        {
            **settings,
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    began = time.perf_counter()
    consumer.subscribe([topic])
    left = count
    while left > 0:
        left -= len(consumer.consume(500, 1.0))
    seconds = time.perf_counter() - began
    consumer.close()
    return seconds


SINK = """
import sys, threading, time
from pathlib import Path
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.apply import apply
from headrace.sinks.serve import serve
from headrace.sinks.watch import Unwatched
mesh = load_mesh(Path(sys.argv[1]), environment="cluster")
apply(mesh, lambda _: None)
rows = []
class Counter(Unwatched):
    def landed(self, product, landed, seconds):
        rows.append(landed.rows)
names = [str(product.name) for product in mesh.products]
began = time.perf_counter()
assert serve(mesh, names, until_caught_up=True, stop=threading.Event(), watcher=Counter())
print(time.perf_counter() - began, sum(rows), len(rows))
"""


def sink(cluster: Cluster, root: Path, prefix: str, count: int) -> tuple[float, float, float]:
    """Return the seconds from start to caught up, the CPU seconds and the peak memory in MB of a sink's process."""
    write_mesh(root, cluster.endpoints, prefix, {ORDERS: EVENT}, COMMIT_INTERVAL_S)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", SINK, str(root)], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, rows, _ = done.stdout.splitlines()[-1].split()
    assert int(rows) == count, f"{rows} rows of {count} events"
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(seconds), cpu_s, after.ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        root = Path(folder)
        stack = embedded_stack(root / "cluster")
        cluster = Cluster(stack.up(die_with_parent=True, progress=lambda _: None))
        try:
            fill(cluster, root / "fill", "bench.", options.events)
            measure(cluster, root, options.events, options.rounds, as_json=options.json)
        finally:
            stack.down(lambda _: None)


def measure(cluster: Cluster, root: Path, count: int, rounds: int, *, as_json: bool) -> None:
    """Measure all three in turn and print each round's rates and the sink's ratios, then the ratios' medians."""
    results = []
    bootstrap, topic = cluster.endpoints.bootstrap_servers, f"bench.{ORDERS}"
    # Not counted: it brings the topic into the system's memory, for all three alike.
    bare(bootstrap, topic, count, {})
    for number in range(rounds):
        bare_s = bare(bootstrap, topic, count, {})
        tuned_s = bare(bootstrap, topic, count, CONSUMER_DEFAULTS)
        sink_s, cpu_s, memory_mb = sink(cluster, root / f"round{number}", "bench.", count)
        results.append({"bare_s": bare_s, "tuned_s": tuned_s, "sink_s": sink_s, "cpu_s": cpu_s, "memory_mb": memory_mb})
        if not as_json:
            print(
                f"bare consume {count / bare_s:>9,.0f}/s   with the sink's fetch settings {count / tuned_s:>9,.0f}/s   "
                f"sink {count / sink_s:>9,.0f}/s   ratios {bare_s / sink_s:.2f} and {tuned_s / sink_s:.2f}   "
                f"(sink: {cpu_s:.1f} CPU s, {memory_mb:,.0f} MB)",
                flush=True,
            )
    ratios = {
        "ratio_bare": statistics.median(result["bare_s"] / result["sink_s"] for result in results),
        "ratio_tuned": statistics.median(result["tuned_s"] / result["sink_s"] for result in results),
    }
    if as_json:
        print(json.dumps({"events": count, "rounds": results, **ratios}))
    else:
        print(f"median ratios {ratios['ratio_bare']:.2f} and {ratios['ratio_tuned']:.2f}")


if __name__ == "__main__":
    main()
