"""Topics and tables as an operator meets them: events sent and deleted, topics made anew, what the table holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.schemas.catalog import load_table, open_catalog
from headrace.selfserve.apply import apply
from headrace.streams.admin import Admin
from headrace.streams.history import read_ledger
from tests.support.faulty import FaultyCatalog
from tests.support.meshes import ORDERS, order, send
from tests.support.sinks import events, eventually

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.streams.ledger import Ledger


_ANSWER_S = 60.0


def client(mesh: Mesh) -> AdminClient:
    """Return a client of Kafka's own, for what headrace never does."""
    return AdminClient({"bootstrap.servers": mesh.environment.kafka_config()["bootstrap.servers"]})


def publish(mesh: Mesh, name: str, numbers: range, partition: int = -1) -> None:
    """Send orders of these numbers as events of a product."""
    product = mesh.product(name)
    send(mesh, product.topic, events(mesh, product, map(order, numbers)), partition=partition)


def transaction(mesh: Mesh, name: str, numbers: range, *, commit: bool) -> None:
    """Send orders to partition 0 in a transaction, and commit or abort it: its end takes an offset of its own."""
    product = mesh.product(name)
    producer = Producer({**mesh.environment.kafka_config(), "transactional.id": product.topic})
    producer.init_transactions(_ANSWER_S)
    producer.begin_transaction()
    for key, value in events(mesh, product, map(order, numbers)):
        producer.produce(product.topic, value, key, partition=0)
    producer.flush(_ANSWER_S)
    if commit:
        producer.commit_transaction(_ANSWER_S)
    else:
        producer.abort_transaction(_ANSWER_S)


def transactions_ended(mesh: Mesh, *names: str) -> bool:
    """Tell whether no transaction is open in the topics of products.

    A commit is answered before its marks are in the topics. Kafka, killed in between, may take a topic for a deleted
    one when it starts again, because it has no leader for a moment, and leave the mark out: nobody reads behind that.
    """
    admin = Admin(mesh.environment.kafka_config())
    topics = [admin.topic(mesh.product(name).topic) for name in names]
    return all(
        {partition: marks.end for partition, marks in admin.watermarks(topic).items()} == admin.log_ends(topic)
        for topic in topics
    )


def delete_records(mesh: Mesh, product: Product, before: dict[int, int]) -> None:
    """Have Kafka delete what lies before these offsets, as its retention does."""
    places = [TopicPartition(product.topic, partition, offset) for partition, offset in before.items()]
    admin = client(mesh)
    for future in admin.delete_records(places).values():
        future.result(60)


def make_anew(mesh: Mesh, product: Product) -> tuple[str, str]:
    """Delete a topic and make it again; return both ids."""
    admin = Admin(mesh.environment.kafka_config())
    before = admin.topic(product.topic).id
    deleting = client(mesh)
    deleting.delete_topics([product.topic])[product.topic].result(60)
    assert eventually(lambda: product.topic not in admin.find(product.topic))
    apply(mesh, lambda _: None)
    after = admin.topic(product.topic).id
    assert before != after
    return before, after


def table_of(mesh: Mesh, name: str = ORDERS) -> Table:
    """Load a product's table, as an operator would."""
    product = mesh.product(name)
    return load_table(open_catalog(mesh.environment, mesh.domain_of(product)), product)


def expire_by_another_engine(mesh: Mesh) -> None:
    """Leave one snapshot, of another engine, whose parent is forgotten: no ledger is to be found by walking."""
    table = table_of(mesh)
    table.append(table.schema().as_arrow().empty_table())
    table = table_of(mesh)
    head = table.current_snapshot()
    assert head is not None
    old = [snapshot.snapshot_id for snapshot in table.snapshots() if snapshot.snapshot_id != head.snapshot_id]
    table.maintenance.expire_snapshots().by_ids(old).commit()


def ledger_of(mesh: Mesh, name: str = ORDERS) -> Ledger:
    """Return the ledger of a product's table, which must have one."""
    ledger = read_ledger(table_of(mesh, name), mesh.product(name))
    assert ledger is not None
    return ledger


def faulty_catalog(mesh: Mesh, name: str = ORDERS) -> FaultyCatalog:
    """Return the catalog of a product's domain with a fault to come."""
    domain = mesh.domain_of(mesh.product(name))
    return FaultyCatalog(domain.name, **mesh.environment.catalog_properties(domain))
