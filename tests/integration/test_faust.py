"""Faust applications on a mesh: what agents are given, and what a failure leaves to be given again."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import NotApplied, UserError
from headrace.schemas.registry import Registry
from headrace.streams.admin import Admin
from headrace.streams.faust_codec import ProductSchema, faust_app, faust_topic
from headrace.streams.subscriber import Reading, Subscriber
from tests.integration.test_subscriber_values import EVERYTHING, UID, thing
from tests.support.meshes import ORDER, ORDERS, encoded, order, send
from tests.support.sinks import events, eventually, registered_id
from tests.support.subscribing import publish, register, send_as

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import faust

    from headrace.schemas.mesh import Mesh
    from headrace.streams.portions import Poison
    from tests.support.meshes import Cluster


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - conditions of another library's state
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(
    mesh: Mesh, handle: Callable[[Any], Awaitable[None]], *, product: str = ORDERS, **options: Any
) -> AsyncIterator[tuple[faust.App, Any]]:
    """Run an application with one agent while the block lasts."""
    poison = {"on_poison": options.pop("on_poison")} if "on_poison" in options else {}
    concurrency = options.pop("concurrency", 1)
    # A loop that stands still for seconds, as on a busy machine, keeps its part: else events would come again.
    patient: dict[str, Any] = {"broker_session_timeout": 30.0, "broker_request_timeout": 60.0}
    app = faust_app(mesh, "test", broker_commit_interval=0.1, **patient, **options)
    topic = faust_topic(app, mesh, product, **poison)

    async def agent(stream: Any) -> None:
        async for event in stream:
            await handle(event)

    app.agent(topic, concurrency=concurrency)(agent)
    try:
        await app.start()
        yield app, topic
    finally:
        # After a crash, stopping ends in a cancellation.
        await asyncio.wait([asyncio.ensure_future(app.stop())], timeout=30)


def given(mesh: Mesh, count: int, **options: Any) -> list[Any]:
    """Run an application until its agent was given so many events, and return them."""
    got: list[Any] = []

    async def keep(event: Any) -> None:
        got.append(event)

    async def run() -> None:
        async with running(mesh, keep, **options):
            await until(lambda: len(got) >= count)

    asyncio.run(run())
    return got


def committed(mesh: Mesh) -> int:
    """The group's position in partition 0; below 0: none."""
    group = f"{mesh.environment.topic_prefix}headrace.faust.test"
    consumer = Consumer({**mesh.environment.kafka_config(), "group.id": group})
    try:
        (place,) = consumer.committed([TopicPartition(mesh.product(ORDERS).topic, 0)], timeout=60)
        return int(place.offset)
    finally:
        consumer.close()


def in_transactions(mesh: Mesh, *numbers: int) -> None:
    """Send events to partition 0, each in a transaction of its own, so that offsets have gaps."""
    product = mesh.product(ORDERS)
    producer = Producer({**mesh.environment.kafka_config(), "transactional.id": f"{product.topic}-test"})
    producer.init_transactions(30)
    for key, value in events(mesh, product, map(order, numbers)):
        producer.begin_transaction()
        producer.produce(product.topic, value, key, 0)
        producer.commit_transaction(30)


def test_agents_are_given_committed_events_as_dicts(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    send(mesh, product.topic, events(mesh, product, [order(1)]))
    producer = Producer({**mesh.environment.kafka_config(), "transactional.id": f"{product.topic}-test"})
    producer.init_transactions(30)
    for number, end in ((2, producer.abort_transaction), (3, producer.commit_transaction)):
        producer.begin_transaction()
        for key, value in events(mesh, product, [order(number)]):
            producer.produce(product.topic, value, key)
        end(30)
    assert sorted(given(mesh, 2), key=lambda event: str(event["id"])) == [order(1), order(3)]


def test_values_are_python_s_and_versions_are_read_as_the_contract_s(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    fields: list[dict[str, Any]] = [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "fare", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "ref", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "raw", "type": "bytes"},
        {"name": "extras", "type": {"type": "map", "values": "int"}},
    ]
    event = {
        "id": "o1",
        "at": dt.datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=dt.UTC),
        "day": dt.date(2024, 2, 29),
        "fare": Decimal("-1.50"),
        "ref": uuid.UUID(int=7),
        "raw": b"\0\xff",
        "extras": {"bag": 2},
    }
    old = {"type": "record", "name": "Order", "fields": [*fields, {"name": "gone", "type": "int", "default": 0}]}
    new = {"type": "record", "name": "Order", "fields": [*fields, {"name": "tip", "type": "long", "default": 5}]}
    before = cluster.applied(tmp_path / "old", prefix=prefix, schemas={ORDERS: old})
    product = before.product(ORDERS)
    send(before, product.topic, events(before, product, [{**event, "gone": 1}]))
    mesh = cluster.applied(tmp_path / "new", prefix=prefix, schemas={ORDERS: new})
    product = mesh.product(ORDERS)
    send(mesh, product.topic, events(mesh, product, [{**event, "tip": 2**40}]))
    found = given(mesh, 2)
    assert sorted(found, key=lambda each: int(each["tip"])) == [{**event, "tip": 5}, {**event, "tip": 2**40}]


def test_values_of_all_types_and_versions_are_those_that_a_subscriber_gives(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    fixed_uid = {"type": "fixed", "name": "Ref", "size": 16, "logicalType": "uuid"}
    everything: dict[str, Any] = dict(EVERYTHING)
    line = everything["fields"][11]["type"]["items"]
    deep = {**line, "fields": [*line["fields"], {"name": "by", "type": ["null", fixed_uid], "default": None}]}
    fields = [
        {**each, "type": {"type": "array", "items": deep}} if each["name"] == "lines" else each
        for each in everything["fields"]
    ]
    old = {**everything, "fields": fields}
    tip = {
        "name": "tip",
        "type": {"type": "map", "values": {"type": "array", "items": "float"}},
        "default": {"a": [0.1]},
    }
    before = cluster.applied(tmp_path / "old", prefix=prefix, schemas={"shop.things": old})
    product = before.product("shop.things")
    things = [thing(number) for number in range(4)]
    for each in things:
        each["lines"] = [
            {**inner, "by": uid and uid.bytes} for inner, uid in zip(each["lines"], (UID, None), strict=True)
        ]
    sent = events(before, product, things[:2])
    broken = [("k", sent[0][1] + b"\0" if sent[0][1] else None)]
    send(before, product.topic, [*sent, *broken], partition=0)
    mesh = cluster.applied(tmp_path / "new", prefix=prefix, schemas={"shop.things": {**old, "fields": [*fields, tip]}})
    product = mesh.product("shop.things")
    newer = [{**each, "tip": {}} for each in things[2:]]
    send(mesh, product.topic, events(mesh, product, newer), partition=0)
    told: list[Poison] = []
    refused: list[Poison] = []
    found = given(mesh, 4, product="shop.things", on_poison=told.append)
    with Subscriber(
        mesh, "shop.things", group=None, reading=Reading(until_end=True, on_poison=refused.append)
    ) as subscriber:
        assert found == list(subscriber)
    assert found[0]["lines"][0]["by"] == UID
    assert found[0]["tip"] != found[3]["tip"] == {}
    assert (
        [(each.offset, each.reason) for each in told]
        == [(each.offset, each.reason) for each in refused]
        == [(2, "undecodable")]
    )


def test_a_version_that_the_contract_cannot_read_ends_the_worker_and_is_not_passed_over(mesh: Mesh) -> None:
    publish(mesh, [0], partition=0)
    other = {**ORDER, "fields": [ORDER["fields"][0], {"name": "amount", "type": ["null", "long"], "default": None}]}
    send_as(mesh, other, register(mesh, other), [{"id": "x", "amount": None}])
    told: list[Poison] = []

    async def ignore(event: Any) -> None:
        del event

    async def run() -> None:
        for _ in range(2):
            async with running(mesh, ignore, on_poison=told.append) as (app, _topic):
                async with asyncio.timeout(60):
                    await app.wait()
                assert isinstance(app.crash_reason, UserError)
                assert "amount: it may be null" in app.crash_reason.what

    asyncio.run(run())
    assert not told


def test_a_topic_that_the_broker_does_not_know_yet_is_read_soon_after_it_does(mesh: Mesh) -> None:
    topic = mesh.product(ORDERS).topic
    admin = Admin(mesh.environment.kafka_config())
    got: list[Any] = []

    async def keep(event: Any) -> None:
        got.append(event["id"])

    def begin_anew() -> None:
        admin.create(topic, partitions=2, config={})
        publish(mesh, [0])

    async def run() -> None:
        app = faust_app(mesh, "test", broker_commit_interval=0.1, standby=True)
        found = faust_topic(app, mesh, ORDERS)
        deleting = AdminClient(dict(mesh.environment.kafka_config()))
        deleting.delete_topics([topic])[topic].result(30)
        assert await asyncio.to_thread(eventually, lambda: not admin.find(topic))

        async def agent(stream: Any) -> None:
            async for event in stream:
                await keep(event)

        app.agent(found)(agent)
        try:
            await app.start()
            await until(lambda: app.rebalancing_count > 0 and not app.rebalancing)
            await asyncio.to_thread(begin_anew)
            await until(lambda: bool(got))
        finally:
            await asyncio.wait([asyncio.ensure_future(app.stop())], timeout=30)

    asyncio.run(run())


def test_a_standby_worker_that_comes_leaves_the_work_where_it_is(mesh: Mesh) -> None:
    got: dict[int, list[str]] = {}

    def keeping(worker: int) -> Callable[[Any], Awaitable[None]]:
        async def keep(event: Any) -> None:
            got.setdefault(worker, []).append(event["id"])

        return keep

    def handled(number: int) -> bool:
        return any(f"o{number}" in ids for ids in got.values())

    async def run() -> None:
        async with AsyncExitStack() as workers:
            for worker in range(4):
                app, _ = await workers.enter_async_context(running(mesh, keeping(worker), standby=True))
                await until(lambda app=app: app.rebalancing_count > 0 and not app.rebalancing)  # type: ignore[misc]
                await asyncio.to_thread(publish, mesh, [worker])
                await until(lambda number=worker: handled(number))  # type: ignore[misc]

    asyncio.run(run())
    assert got.keys() == {0}
    assert set(got[0]) == {"o0", "o1", "o2", "o3"}


def poisoned(mesh: Mesh) -> None:
    """Put one message of each kind that is no event, and an event behind them, into partition 0."""
    product = mesh.product(ORDERS)
    other = AvroSchema.parse(json.dumps({"type": "record", "name": "Other", "fields": [{"name": "x", "type": "int"}]}))
    with Registry(mesh.environment.registry_config()) as registry:
        foreign = registry.register(f"{product.topic}-other", other).id
    mine = registered_id(mesh, product)
    good = encoded(product.schema, mine, order(1))
    bad = [
        None,
        b"{}",
        encoded(product.schema, 2**31 - 1, order(1)),
        encoded(other, foreign, {"x": 1}),
        good[:-1],
        good + b"\0",
    ]
    send(mesh, product.topic, [("k", value) for value in (*bad, good)], partition=0)


REASONS = ["null-value", "no-schema-id", "unknown-schema", "foreign-schema", "undecodable", "undecodable"]


def test_what_is_no_event_is_told_and_skipped(mesh: Mesh) -> None:
    poisoned(mesh)
    told: list[Poison] = []
    assert given(mesh, 1, on_poison=told.append) == [order(1)]
    assert [poison.reason for poison in told] == REASONS
    assert [poison.offset for poison in told] == list(range(6))


def test_without_a_callback_it_is_logged_and_counted(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    poisoned(mesh)
    got: list[Any] = []

    async def keep(event: Any) -> None:
        got.append(event)

    async def run() -> int:
        async with running(mesh, keep) as (_, topic):
            await until(lambda: bool(got))
            schema = topic.schema
            assert isinstance(schema, ProductSchema)
            return schema.refused

    assert asyncio.run(run()) == len(REASONS)
    lines = [record.getMessage() for record in caplog.records if record.name == "headrace.faust"]
    assert len(lines) == len(REASONS)
    assert not any("ann" in line for line in lines)


def fails_at(mesh: Mesh, number: int, **options: Any) -> list[str]:
    """Run an application whose agent fails at an event; return the ids that it was given."""
    got: list[str] = []

    async def keep(event: Any) -> None:
        got.append(event["id"])
        if event["id"] == f"o{number}":
            raise RuntimeError("the agent fails")

    async def run() -> None:
        async with running(mesh, keep, **options) as (app, _):
            async with asyncio.timeout(60):
                await app.wait()
            assert isinstance(app.crash_reason, RuntimeError)

    asyncio.run(run())
    return got


def test_an_event_at_which_an_agent_failed_is_given_again(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    send(mesh, product.topic, events(mesh, product, map(order, range(5))), partition=0)
    assert fails_at(mesh, 2) == ["o0", "o1", "o2"]
    assert committed(mesh) <= 2
    assert [event["id"] for event in given(mesh, 3)][-3:] == ["o2", "o3", "o4"]


def test_a_poison_callback_that_raises_ends_the_worker_and_the_message_comes_again(mesh: Mesh) -> None:
    poisoned(mesh)

    def refuse(poison: Poison) -> None:
        raise ValueError(poison.reason)

    async def keep(event: Any) -> None:
        raise AssertionError("nothing behind it is handed out")

    async def run() -> None:
        async with running(mesh, keep, on_poison=refuse) as (app, _):
            async with asyncio.timeout(60):
                await app.wait()
            assert isinstance(app.crash_reason, ValueError)

    asyncio.run(run())
    told: list[Poison] = []
    assert given(mesh, 1, on_poison=told.append) == [order(1)]
    assert len(told) == len(REASONS)


def test_an_event_behind_a_gap_is_not_committed_before_it_is_handled(mesh: Mesh) -> None:
    in_transactions(mesh, 0, 1, 2, 3, 4)  # at offsets 0, 2, 4, 6, 8
    handled: set[str] = set()

    async def run() -> int:
        release = asyncio.Event()

        async def handle(event: Any) -> None:
            if event["id"] == "o2":
                await release.wait()
            handled.add(event["id"])

        async with running(mesh, handle, concurrency=2):
            await until(lambda: handled == {"o0", "o1", "o3", "o4"})
            # Everything before it is committed; Faust by itself would commit 9.
            async with asyncio.timeout(60):
                while (position := await asyncio.to_thread(committed, mesh)) < 3:  # noqa: ASYNC110 - asks the broker
                    await asyncio.sleep(0.1)
            release.set()
        return position

    assert asyncio.run(run()) in (3, 4)


def test_a_topic_that_does_not_exist_is_told_at_once(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = cluster.mesh(tmp_path / "mesh", prefix=prefix)
    with pytest.raises(NotApplied):
        faust_topic(faust_app(mesh, "test"), mesh, ORDERS)
