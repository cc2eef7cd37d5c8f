"""Each event once, known by its id: across restarts, crashes, rivals, sinks and what Kafka forgets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.producers import transactions
from headrace.producers.once import OncePublisher
from headrace.producers.publisher import Publisher
from headrace.schemas.errors import EventError, NotApplied, Unavailable, UserError
from headrace.selfserve.stack.embedded import embedded_stack
from headrace.streams.subscriber import Reading, Start, Subscriber
from tests.support.meshes import ORDERS, Cluster, ids, order, send
from tests.support.sinks import ROOT, caught_up, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from headrace.schemas.mesh import Mesh


def orders(*numbers: int) -> list[dict[str, Any]]:
    return [order(number) for number in numbers]


def once(mesh: Mesh, **options: Any) -> OncePublisher:
    return OncePublisher(mesh, ORDERS, **{"identity": "test", "id_field": "id", **options})


def in_topic(mesh: Mesh) -> list[str]:
    """The ids that a reader of committed records finds in the topic, sorted."""
    reading = Reading(until_end=True, on_poison=lambda _: None)
    with Subscriber(mesh, ORDERS, group=None, start=Start.EARLIEST, reading=reading) as events:
        return sorted(event["id"] for event in events)


def test_an_event_is_published_once_whoever_repeats_it(mesh: Mesh) -> None:
    with Publisher(mesh, ORDERS) as plain:
        plain.publish(order(0))
    with once(mesh) as publisher:
        assert publisher.publish(orders(0, 1, 2, 1)) == 2
        assert publisher.publish(orders(2, 3)) == 1
        assert publisher.publish(orders(1, 3)) == 0
        assert publisher.publish([]) == 0
    with once(mesh) as publisher:
        assert publisher.publish(orders(3, 4)) == 1
    assert in_topic(mesh) == ["o0", "o1", "o2", "o3", "o4"]


def test_ids_are_known_from_the_table_and_from_the_topic_behind_it(mesh: Mesh) -> None:
    with once(mesh) as publisher:
        publisher.publish(orders(1, 2))
    caught_up(mesh)
    with once(mesh) as publisher:
        publisher.publish(orders(2, 3))
    known: list[Mapping[str, Any]] = []
    with once(mesh, on_known=known.append) as publisher:
        assert sorted(event["id"] for event in known) == ["o1", "o2", "o3"]
        assert publisher.publish(orders(1, 2, 3)) == 0
    caught_up(mesh)
    assert ids(mesh) == ["o1", "o2", "o3"]


def forget(mesh: Mesh) -> None:
    """Have Kafka delete everything that is in the topic, as retention does."""
    topic = mesh.product(ORDERS).topic
    admin = AdminClient({**mesh.environment.kafka_config()})
    for future in admin.delete_records([TopicPartition(topic, partition, OFFSET_END) for partition in (0, 1)]).values():
        future.result(30)


def test_ids_are_known_from_the_table_alone_when_kafka_has_deleted_their_events(mesh: Mesh) -> None:
    with once(mesh) as publisher:
        publisher.publish(orders(*range(20)))
    caught_up(mesh)
    forget(mesh)
    assert in_topic(mesh) == []
    with once(mesh) as publisher:
        assert publisher.publish(orders(*range(21))) == 1
    caught_up(mesh)
    assert ids(mesh) == sorted(f"o{number}" for number in range(21))


UUIDS = [str(uuid.UUID(int=number)) for number in (0, 1, 2**127)]


@pytest.mark.parametrize(
    ("avro_type", "values"),
    [
        ("string", ["", "ä", "o1"]),
        ("int", [-1, 0, 2**31 - 1]),
        ("long", [-1, 0, 2**63 - 1]),
        ({"type": "string", "logicalType": "uuid"}, UUIDS),
        ({"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}, [uuid.UUID(text) for text in UUIDS]),
    ],
    ids=["string", "int", "long", "uuid as text", "uuid as bytes"],
)
def test_ids_of_every_type_are_known_again(
    cluster: Cluster, tmp_path: Path, prefix: str, avro_type: object, values: Sequence[Any]
) -> None:
    schema = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": avro_type}]}
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: schema})
    with once(mesh) as publisher:
        assert publisher.publish({"id": value} for value in values) == len(values)
    with once(mesh) as publisher:
        assert publisher.publish({"id": value} for value in values) == 0, "not known from the topic"
    caught_up(mesh)
    forget(mesh)
    with once(mesh) as publisher:
        assert publisher.publish({"id": value} for value in values) == 0, "not known from the table"


def test_an_event_that_the_contract_refuses_keeps_all_of_its_company_back(mesh: Mesh) -> None:
    with once(mesh) as publisher:
        with pytest.raises(EventError, match="amount"):
            publisher.publish([*orders(1, 2), {**order(3), "amount": "three"}])
        assert in_topic(mesh) == []
        assert publisher.publish(orders(1, 2, 3)) == 3
    with pytest.raises(UserError, match="the publisher is closed"):
        publisher.publish(orders(4))


def test_what_is_no_event_in_the_topic_hides_none_that_is(mesh: Mesh) -> None:
    send(mesh, mesh.product(ORDERS).topic, [("k", b"garbage"), ("k", None)], partition=0)
    with once(mesh) as publisher:
        publisher.publish(orders(*range(10)))
    send(mesh, mesh.product(ORDERS).topic, [("k", b"garbage")], partition=1)
    with once(mesh) as publisher:
        assert publisher.publish(orders(*range(11))) == 1


@pytest.mark.parametrize(
    ("id_field", "problem"),
    [
        ("number", "the schema has no field number"),
        ("note", "note cannot be an id"),
        ("amount", "amount cannot be an id"),
        ("email", "email is personal data"),
    ],
)
def test_a_field_that_cannot_tell_events_apart_is_refused(
    cluster: Cluster, tmp_path: Path, prefix: str, id_field: str, problem: str
) -> None:
    fields = [
        {"name": "id", "type": "string"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "amount", "type": "double"},
        {"name": "email", "type": "string", "confluent:tags": ["PII", "user.contact.email"]},
    ]
    schema = {"type": "record", "name": "Order", "fields": fields}
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: schema})
    with pytest.raises(UserError, match=problem):
        once(mesh, id_field=id_field)


def test_a_field_that_an_older_version_tags_is_refused_too(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    field = {"name": "id", "type": "string"}
    tagged = {"type": "record", "name": "Order", "fields": [{**field, "confluent:tags": ["PII", "user.name"]}]}
    cluster.applied(tmp_path / "old", prefix=prefix, schemas={ORDERS: tagged})
    new = {"type": "record", "name": "Order", "fields": [field]}
    mesh = cluster.applied(tmp_path / "new", prefix=prefix, schemas={ORDERS: new})
    with pytest.raises(UserError, match="id is personal data"):
        once(mesh)
    renamed = {"type": "record", "name": "Order", "fields": [{"name": "order", "type": "string", "aliases": ["id"]}]}
    mesh = cluster.applied(tmp_path / "renamed", prefix=prefix, schemas={ORDERS: renamed})
    with pytest.raises(UserError, match="order is personal data"):
        once(mesh, id_field="order")


def test_a_contract_from_before_a_rename_knows_ids_under_either_name(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    old, new = (
        {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}, field]}
        for field in (
            {"name": "code", "type": "string"},
            {"name": "number", "type": "string", "aliases": ["code"]},
        )
    )
    before = cluster.applied(tmp_path / "before", prefix=prefix, schemas={ORDERS: old})
    with once(before, id_field="code") as publisher:
        assert publisher.publish([{"id": "o1", "code": "c1"}]) == 1
    after = cluster.applied(tmp_path / "after", prefix=prefix, schemas={ORDERS: new})
    with once(after, id_field="number") as publisher:
        assert publisher.publish([{"id": "o1", "number": "c1"}, {"id": "o2", "number": "c2"}]) == 1
    told: list[Mapping[str, Any]] = []
    for on_known in (None, told.append):
        with once(before, id_field="code", on_known=on_known) as publisher:
            assert publisher.publish([{"id": "o2", "code": "c2"}]) == 0
    assert sorted(event["code"] for event in told) == ["c1", "c2"]


def test_a_product_that_was_not_applied_is_refused(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    with pytest.raises(NotApplied):
        once(cluster.mesh(tmp_path / "mesh", prefix=prefix))


class Hooked:
    """A producer that does something before or after the next call of one kind."""

    def __init__(self, producer: Any, call: str, *, before: Callable[[], object]) -> None:
        self._producer, self._call, self._before = producer, call, before

    def __getattr__(self, name: str) -> Any:
        if name == self._call:
            self._call = ""
            self._producer.flush(30)
            self._before()
        return getattr(self._producer, name)


def hook(publisher: OncePublisher, call: str, *, before: Callable[[], object]) -> None:
    transactions: Any = publisher._transactions
    transactions._producer = Hooked(transactions._producer, call, before=before)


def test_who_opens_a_publisher_of_the_same_identity_takes_over(mesh: Mesh) -> None:
    first = once(mesh)
    first.publish(orders(1))
    second = once(mesh)
    for _ in range(2):
        with pytest.raises(UserError, match="another process does the same work and has taken over"):
            first.publish(orders(2))
    assert second.publish(orders(1, 2)) == 1
    assert in_topic(mesh) == ["o1", "o2"]


def test_what_the_one_before_left_open_is_aborted(mesh: Mesh) -> None:
    first, seconds = once(mesh), list[OncePublisher]()
    hook(first, "commit_transaction", before=lambda: seconds.append(once(mesh)))
    with pytest.raises(UserError, match="has taken over"):
        first.publish(orders(1, 2))
    assert in_topic(mesh) == []
    assert seconds[0].publish(orders(2, 3)) == 2
    assert in_topic(mesh) == ["o2", "o3"]


def test_other_identities_go_on(mesh: Mesh) -> None:
    first, second = once(mesh, identity="one"), once(mesh, identity="two")
    assert first.publish(orders(1)) == 1
    assert second.publish(orders(2)) == 1
    assert first.publish(orders(3)) == 1


def test_ids_behind_somebody_elses_open_transaction_are_waited_for(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    other = Producer({**mesh.environment.kafka_config(), "transactional.id": f"{product.topic}-other"})
    other.init_transactions(30)
    with once(mesh) as publisher:
        other.begin_transaction()
        for partition in (0, 1):
            other.produce(product.topic, b"garbage", "k", partition)
        other.flush(30)
        # Committed, and no reader of committed records gets as far yet.
        publisher.publish(orders(*range(10)))
    opened: list[OncePublisher] = []
    opening = threading.Thread(target=lambda: opened.append(once(mesh)), daemon=True)
    opening.start()
    opening.join(3)
    assert not opened
    other.commit_transaction(30)
    opening.join(60)
    assert opened[0].publish(orders(*range(10))) == 0


CRASHING = """
import os, signal, sys
from headrace.producers.once import OncePublisher
from headrace.schemas.mesh import load_mesh
from tests.integration.test_once import hook
from tests.support.meshes import order
root, call, number = sys.argv[1:]
mesh = load_mesh(__import__("pathlib").Path(root), environment="cluster")
publisher = OncePublisher(mesh, "shop.orders", identity="test", id_field="id")
publisher.publish([order(1)])
if call:
    hook(publisher, call, before=lambda: os.kill(os.getpid(), signal.SIGKILL))
publisher.publish([order(1), order(2), order(3)])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("call", "left"),
    [("begin_transaction", 2), ("produce", 2), ("commit_transaction", 2), ("", 0)],
    ids=["before the transaction", "in the transaction", "before its commit", "after its commit"],
)
def test_killed_at_any_step_the_next_one_publishes_what_is_left(mesh: Mesh, call: str, left: int) -> None:
    done = subprocess.run([sys.executable, "-c", CRASHING, str(mesh.root), call, ""], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    with once(mesh) as publisher:
        assert publisher.publish(orders(1, 2, 3)) == left
    assert in_topic(mesh) == ["o1", "o2", "o3"]
    caught_up(mesh)
    assert ids(mesh) == ["o1", "o2", "o3"]


def test_a_broker_that_stands_still_leaves_nothing_lost_or_doubled(
    tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = embedded_stack(tmp_path / "own")
    try:
        mesh = Cluster(stack.up(die_with_parent=True, progress=lambda _: None)).applied(
            tmp_path / "mesh", prefix=prefix
        )
        (broker,) = (status.pid for status in stack.status() if status.name == "kafka")
        assert broker is not None
        sent: list[int] = []
        for call in ("begin_transaction", "commit_transaction"):
            new = [len(sent), len(sent) + 1]
            sent += new
            with once(mesh) as publisher:
                hook(publisher, call, before=lambda: os.kill(broker, signal.SIGSTOP))
                with monkeypatch.context() as impatient:
                    # Only while the broker stands still: what it does meanwhile may take its time.
                    impatient.setattr(transactions, "_ATTEMPT_S", 0.5)
                    impatient.setattr(publisher._transactions, "_patience_s", 2.0)
                    for _ in range(2):
                        with pytest.raises(Unavailable):
                            publisher.publish(orders(*new))
                os.kill(broker, signal.SIGCONT)
                again = partial(published, publisher, orders(*sent))
                assert eventually(again, within_s=60)
            assert in_topic(mesh) == [f"o{number}" for number in sent]
    finally:
        stack.down(lambda _: None)


def published(publisher: OncePublisher, events: list[dict[str, Any]]) -> bool:
    try:
        publisher.publish(events)
    except Unavailable:
        return False
    return True
