"""A product whose topic Kafka compacts: offsets have gaps, and the table keeps what the sink has read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.governance.logs import read_marks
from headrace.governance.verify import verify
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.apply import apply
from headrace.streams.admin import Admin
from tests.support.meshes import ORDERS, order, query, send, write
from tests.support.sinks import assert_exactly_once, caught_up, dead_letters, events, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster

VERSIONS, KEYS = 20, 10
# The cleaner looks every 15 s, and passes over what is still written to.
CLEANED_WITHIN_S = 180.0


def compacted(cluster: Cluster, root: Path, prefix: str) -> Mesh:
    """Apply a mesh whose product's topic is compacted."""
    cluster.mesh(root, prefix=prefix)
    place = root / "domains" / "shop" / "orders" / "contract.odcs.yaml"
    text = place.read_text(encoding="utf-8")
    policy = "value: 2}, {property: kafka.cleanup.policy, value: compact}]"
    write(place, text.replace("value: 2}]", policy))
    mesh = load_mesh(root, environment="cluster")
    apply(mesh, lambda _: None)
    return mesh


def hurry(mesh: Mesh) -> None:
    """Let Kafka compact the topic as soon as it can."""
    quick = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "100"}
    Admin(mesh.environment.kafka_config()).set_config(mesh.product(ORDERS).topic, quick)


def publish(mesh: Mesh, version: int) -> None:
    """Send an event of each key to partition 0."""
    product = mesh.product(ORDERS)
    bodies = ({**order(number), "amount": version} for number in range(KEYS))
    send(mesh, product.topic, events(mesh, product, bodies), partition=0)


def kept(mesh: Mesh) -> int:
    """Return how many events Kafka has."""
    admin = Admin(mesh.environment.kafka_config())
    topic = admin.topic(mesh.product(ORDERS).topic)
    marks = read_marks(mesh.environment.kafka_config(), topic, admin.watermarks(topic))
    return sum(map(len, marks.values()))


def test_the_table_keeps_what_kafka_compacts_away(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = compacted(cluster, tmp_path / "mesh", prefix)
    product = mesh.product(ORDERS)
    for version in range(VERSIONS):
        publish(mesh, version)
    caught_up(mesh)
    assert_exactly_once(mesh)
    # Not before: Kafka may be quicker than a sink.
    hurry(mesh)
    version = VERSIONS

    def cleaned() -> bool:
        # Only a new event closes a segment.
        nonlocal version
        publish(mesh, version)
        version += 1
        return kept(mesh) < version * KEYS

    assert eventually(cleaned, within_s=CLEANED_WITHIN_S)
    send(mesh, product.topic, [("o0", None)], partition=0)
    landed = caught_up(mesh)
    assert 0 < landed.rows(ORDERS) <= (version - VERSIONS) * KEYS
    letters = dead_letters(mesh, product)
    assert [(key, value) for _, key, value in letters] == [(b"o0", None)]
    audit = verify(mesh, [product], lambda _: None)
    assert audit.holds
    assert sum(verdict.beyond_retention for verdict in audit.products[0].verdicts) > 0
    newest = f"SELECT id, max(amount) AS amount FROM {ORDERS} GROUP BY id"
    assert query(mesh, f"SELECT DISTINCT amount FROM ({newest})") == [(version - 1,)]
