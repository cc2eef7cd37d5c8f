"""What a subscriber is given: values of all types and versions, models, poison; and what is told before the first."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import NotApplied, Refusal, UserError
from headrace.streams.subscriber import Poison, Reading, Start, Subscriber
from tests.support.meshes import ORDER, ORDERS, encoded, order, send
from tests.support.sinks import caught_up, events

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster
from tests.support.subscribing import ALL, committed, each_into, numbers_of, publish, register, send_as

GROUP = "marketing.campaigns"


@pytest.fixture
def group(prefix: str) -> str:
    """A consumer group that no other test uses."""
    return f"{prefix}{GROUP}"


@pytest.fixture
def poisoned(mesh: Mesh) -> Mesh:
    """A mesh with poison between the events of partition 0."""
    product = mesh.product(ORDERS)
    (good,) = events(mesh, product, [order(1)])
    assert good[1] is not None
    messages = [good, ("k", None), good, ("k", b"xy"), ("k", good[1][:-1]), ("k", b"\0\0\xff\xff\xff."), good]
    send(mesh, product.topic, messages, partition=0)
    return mesh


def test_poison_stops_and_says_where_and_why(poisoned: Mesh, group: str) -> None:
    found: list[Any] = []
    with (
        pytest.raises(Refusal, match="the message has no value") as told,
        Subscriber(poisoned, ORDERS, group=group, reading=ALL) as subscriber,
    ):
        each_into(found, subscriber)
    assert (told.value.reason, len(found)) == ("null-value", 1)
    assert str(told.value.where).endswith("partition 0, offset 1")
    assert committed(poisoned, group) == {0: 1}


def test_what_stopped_a_subscriber_stops_it_each_time(poisoned: Mesh) -> None:
    with Subscriber(poisoned, ORDERS, group=None, reading=ALL) as subscriber:
        coming = iter(subscriber)
        next(coming)
        for again in (coming, iter(subscriber), coming):
            with pytest.raises(Refusal, match="the message has no value"):
                next(again)


def test_poison_goes_to_who_asks_for_it_in_its_place(poisoned: Mesh, group: str) -> None:
    told: list[Poison | Mapping[str, Any]] = []
    with Subscriber(
        poisoned, ORDERS, group=group, reading=Reading(until_end=True, on_poison=told.append)
    ) as subscriber:
        for event in subscriber:
            told.append(event)  # noqa: PERF402 - poison comes between
    reasons = [each.reason if isinstance(each, Poison) else "event" for each in told]
    assert reasons == ["event", "null-value", "event", "no-schema-id", "undecodable", "unknown-schema", "event"]
    assert committed(poisoned, group)[0] == 7
    truncated = told[4]
    assert isinstance(truncated, Poison)
    assert truncated.key == b"k"
    assert "key=" not in repr(truncated)


NEWER = {**ORDER, "fields": [*ORDER["fields"], {"name": "note", "type": "string", "default": "none"}]}


def test_events_of_all_versions_are_read_as_the_pinned_one(mesh: Mesh) -> None:
    publish(mesh, [0, 1])
    assert caught_up(mesh).outcomes == {ORDERS: True}
    second = register(mesh, NEWER)
    send_as(mesh, NEWER, second, [{**order(2), "note": "two"}])
    for start in (Start.EARLIEST, Start.HISTORY):
        with Subscriber(mesh, ORDERS, group=None, start=start, reading=ALL) as subscriber:
            found = {event["amount"]: event["note"] for event in subscriber}
        # The first two are older than the field: its default fills them, in history too.
        assert found == {0: "none", 1: "none", 2: "two"}
    first = Reading(until_end=True, version=1)
    with Subscriber(mesh, ORDERS, group=None, reading=first) as subscriber:
        assert [sorted(event) for event in subscriber] == [["amount", "email", "id"]] * 3
    # In the table, the newer column is null in older rows.
    assert caught_up(mesh).outcomes == {ORDERS: True}
    with Subscriber(mesh, ORDERS, group=None, start=Start.HISTORY, reading=ALL) as subscriber:
        assert {event["amount"]: event["note"] for event in subscriber} == {0: "none", 1: "none", 2: "two"}


def test_a_version_that_the_pinned_one_cannot_read_is_named(mesh: Mesh) -> None:
    publish(mesh, [0, 1], partition=0)
    other = {**ORDER, "fields": [ORDER["fields"][0], {"name": "amount", "type": ["null", "long"], "default": None}]}
    second = register(mesh, other)
    parsed = AvroSchema.parse(json.dumps(other))
    send(mesh, mesh.product(ORDERS).topic, [("x", encoded(parsed, second, {"id": "x", "amount": None}))], partition=0)
    found: list[Any] = []
    with (
        pytest.raises(
            UserError, match="events of version 2 cannot be read as version 1: amount: it may be null"
        ) as told,
        Subscriber(mesh, ORDERS, group=None, reading=Reading(until_end=True, version=1)) as subscriber,
    ):
        each_into(found, subscriber)
    assert numbers_of(found) == [0, 1]
    assert "pin" in str(told.value.hint)


def test_a_version_that_tags_a_field_later_masks_it_in_a_subscriber_that_is_open(mesh: Mesh) -> None:
    publish(mesh, [1])
    with Subscriber(mesh, ORDERS, group=None, reading=Reading(until_end=True, masked=True)) as subscriber:
        tagged = {
            **ORDER,
            "fields": [{**ORDER["fields"][0], "confluent:tags": ["PII", "user.contact.email"]}, *ORDER["fields"][1:]],
        }
        send_as(mesh, tagged, register(mesh, tagged), [order(2)])
        found = {event["amount"]: event["id"] for event in subscriber}
    assert len(found[2]) == 64


class Order(BaseModel):
    id: str
    amount: int
    email: str | None


@dataclass
class Amount:
    id: str
    amount: int


def test_events_become_models(mesh: Mesh) -> None:
    publish(mesh, [7])
    with Subscriber(mesh, ORDERS, group=None, model=Order, reading=ALL) as orders:
        assert list(orders) == [Order(id="o7", amount=7, email="ann7@example.org")]
    with Subscriber(mesh, ORDERS, group=None, model=Amount, reading=ALL) as amounts:
        assert list(amounts) == [Amount("o7", 7)]


class Strange(BaseModel):
    id: int
    colour: str


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"product": "shop.order"}, "the mesh has no product shop.order"),
        ({"group": "headrace.sink.shop.orders"}, "is no name for a subscriber's group"),
        ({"group": " "}, "is no name for a subscriber's group"),
        ({"start": dt.datetime(2024, 1, 1)}, "the start's time has no zone"),  # noqa: DTZ001 - what is tested
        ({"start": "newest"}, "a subscriber cannot start at 'newest'"),
        ({"reading": Reading(version=7)}, "the subject has no version 7"),
        ({"model": Strange}, "id: the schema has string, the model int; colour: the model requires it"),
        ({"model": dict}, "this is no pydantic model and no dataclass"),
        ({"model": str | int}, r"str \| int for shop.orders \(version 1\): this is no pydantic model"),
        ({"model": "Order"}, "this is no pydantic model and no dataclass"),
        ({"start": {0: -1}}, "cannot start at offset -1 of partition 0"),
    ],
)
def test_bad_input_is_told_before_the_first_event(mesh: Mesh, given: dict[str, Any], told: str) -> None:
    arguments: dict[str, Any] = {"product": ORDERS, "group": None, **given}
    with pytest.raises(UserError, match=told) as caught:
        Subscriber(mesh, **arguments)
    assert caught.value.hint or "model" in given


def test_a_version_that_does_not_exist_is_told_with_those_that_do(mesh: Mesh) -> None:
    register(mesh, NEWER)
    with pytest.raises(UserError) as caught:
        Subscriber(mesh, ORDERS, group=None, reading=Reading(version=3))
    assert caught.value.hint == "it has 1, 2"


def test_a_product_that_was_never_applied_is_told(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = cluster.mesh(tmp_path / "mesh", prefix=prefix)
    with pytest.raises(NotApplied, match="the product's schema is not registered"):
        Subscriber(mesh, ORDERS, group=None)


CALL = {**ORDER, "fields": [*ORDER["fields"], {"name": "phone", "type": "string", "confluent:tags": ["PII"]}]}


class Call(BaseModel):
    id: str
    phone: str


class MaskedCall(BaseModel):
    id: str
    phone: str | None


def test_a_field_that_the_tables_mask_nulls_is_none_in_history(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: CALL})
    product = mesh.product(ORDERS)
    calls = [{**order(number), "phone": f"+4930{number}"} for number in range(2)]
    send(mesh, product.topic, events(mesh, product, calls[:1]))
    assert caught_up(mesh).outcomes == {ORDERS: True}
    send(mesh, product.topic, events(mesh, product, calls[1:]))
    with pytest.raises(UserError, match="phone: its mask makes it null in the table, the model takes no None"):
        Subscriber(mesh, ORDERS, group=None, start=Start.HISTORY, model=Call)
    with Subscriber(mesh, ORDERS, group=None, start=Start.HISTORY, model=MaskedCall, reading=ALL) as masked:
        assert sorted((call.id, call.phone) for call in masked) == [("o0", None), ("o1", "+49301")]
    with Subscriber(mesh, ORDERS, group=None, model=Call, reading=ALL) as subscriber:
        assert sorted((call.id, call.phone) for call in subscriber) == [("o0", "+49300"), ("o1", "+49301")]
    hidden = Reading(until_end=True, masked=True)
    with Subscriber(mesh, ORDERS, group=None, start=Start.HISTORY, reading=hidden) as batches:
        assert {number for batch in batches.batches() for number in batch.column("phone").to_pylist()} == {None}


EVERYTHING = {
    "type": "record",
    "name": "Thing",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "uid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a", "b"]}},
        {"name": "raw", "type": ["null", "bytes"], "default": None},
        {"name": "code", "type": {"type": "fixed", "name": "Code", "size": 2}},
        {"name": "ratio", "type": "double"},
        {"name": "flags", "type": {"type": "map", "values": ["null", "long"]}},
        {
            "name": "lines",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Line",
                    "fields": [
                        {"name": "ref", "type": ["null", {"type": "string", "logicalType": "uuid"}], "default": None},
                        {"name": "tags", "type": {"type": "array", "items": "string"}},
                    ],
                },
            },
        },
        {
            "name": "inner",
            "type": ["null", {"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "int"}]}],
            "default": None,
        },
    ],
}


UID = uuid.UUID("752dd373-ddde-4170-b289-77baa80c18e9")


def thing(number: int) -> dict[str, Any]:
    return {
        "id": f"t{number}",
        "amount": decimal.Decimal("12.50"),
        "uid": UID,
        "day": dt.date(2024, 2, 29),
        "at": dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC),
        "local": dt.datetime(2024, 2, 29, 12, 30, 0, 5),  # noqa: DTZ001 - a local time has no zone
        "kind": "b",
        "raw": b"\0\xff" if number % 2 else None,
        "code": b"ab",
        "ratio": 0.25,
        "flags": {"x": 1, "y": None},
        "lines": [{"ref": UID, "tags": ["p", "q"]}, {"ref": None, "tags": []}],
        "inner": {"n": 3} if number % 2 else None,
    }


def test_history_and_topic_give_the_same_values(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={"shop.things": EVERYTHING})
    product = mesh.product("shop.things")
    send(mesh, product.topic, events(mesh, product, map(thing, range(4))))
    for landed in (False, True):
        with Subscriber(mesh, "shop.things", group=None, start=Start.HISTORY, reading=ALL) as subscriber:
            found = [(event, subscriber.place.from_history) for event in subscriber if subscriber.place]
        assert sorted((event for event, _ in found), key=lambda event: str(event["id"])) == list(map(thing, range(4)))
        assert {past for _, past in found} == {landed}
        assert all(event["at"].utcoffset() == dt.timedelta(0) for event, _ in found)
        with Subscriber(mesh, "shop.things", group=None, start=Start.HISTORY, reading=ALL) as subscriber:
            schemas = {batch.schema for batch in subscriber.batches()}
        assert len(schemas) == 1
        assert caught_up(mesh).outcomes == {"shop.things": True}
