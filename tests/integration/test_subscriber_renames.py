"""Subscribing across renames, over real servers: history in the table, then the topic, as an old and a new version."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from headrace.streams.subscriber import Reading, Start, Subscriber
from tests.support.meshes import ORDER, ORDERS, order
from tests.support.sinks import caught_up
from tests.support.subscribing import committed, publish, register, send_as

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.mesh import Mesh

TOTAL = {"name": "total", "type": "long"}
# The e-mail address has lost its tag on the way.
MAIL = {"name": "mail", "type": ["null", "string"], "default": None}
RENAMED = {
    **ORDER,
    "fields": [
        ORDER["fields"][0],
        {**TOTAL, "aliases": ["amount"]},
        {**MAIL, "aliases": ["email"]},
        {"name": "note", "type": "string", "default": "none"},
    ],
}
# The name that was given up is another field's.
TAKEN = {**ORDER, "fields": [ORDER["fields"][0], TOTAL, MAIL, {"name": "amount", "type": "string", "default": "?"}]}
SEEN: Mapping[int, list[dict[str, Any]]] = {
    1: [{"amount": 0}, {"amount": 1}, {"amount": 2}, {"amount": 3}],
    2: [
        {"total": 0, "note": "none"},
        {"total": 1, "note": "none"},
        {"total": 2, "note": "two"},
        {"total": 3, "note": "none"},
    ],
    3: [
        {"total": 0, "amount": "?"},
        {"total": 1, "amount": "?"},
        {"total": 2, "amount": "?"},
        {"total": 3, "amount": "three"},
    ],
}


def body(number: int, **more: Any) -> dict[str, Any]:
    old = order(number)
    return {"id": old["id"], "total": old["amount"], "mail": old["email"], **more}


def from_history(subscriber: Subscriber[dict[str, Any]]) -> bool:
    """Tell whether the event at hand came from the table."""
    assert subscriber.place is not None
    return subscriber.place.from_history


def without(event: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in names}


@pytest.mark.parametrize("pinned", [1, 2, 3])
def test_history_and_topic_are_one_across_renames(mesh: Mesh, prefix: str, pinned: int) -> None:
    group, mail = f"{prefix}marketing.campaigns", "email" if pinned == 1 else "mail"
    publish(mesh, [0, 1], partition=0)
    assert caught_up(mesh).outcomes == {ORDERS: True}
    second = register(mesh, RENAMED)
    send_as(mesh, RENAMED, second, [body(2, note="two")], partition=0)
    assert caught_up(mesh).outcomes == {ORDERS: True}
    third = register(mesh, TAKEN)

    masked = Reading(version=pinned, masked=True)
    with Subscriber(mesh, ORDERS, group=group, start=Start.HISTORY, reading=masked) as subscriber:
        coming = iter(subscriber)
        found = list(islice(coming, 3))
        assert from_history(subscriber)
        # It goes on in the topic, with events of a version that the table has not followed.
        send_as(mesh, TAKEN, third, [body(3, amount="three")], partition=0)
        found.append(next(coming))
        assert not from_history(subscriber)
    assert committed(mesh, group) == {0: 4}
    assert [without(event, "id", mail) for event in found] == SEEN[pinned]
    # What version 1 has tagged is masked under whatever name.
    assert [event[mail] and len(event[mail]) for event in found] == [None, 64, None, 64]

    everything = Reading(version=pinned, masked=True, until_end=True)
    with Subscriber(mesh, ORDERS, group=None, reading=everything) as topic:
        assert list(topic) == found
    assert caught_up(mesh).outcomes == {ORDERS: True}
    with Subscriber(mesh, ORDERS, group=None, start=Start.HISTORY, reading=everything) as table:
        assert list(table) == found
    plain = Reading(version=pinned, until_end=True)
    with Subscriber(mesh, ORDERS, group=None, reading=plain) as open_topic:
        assert [event[mail] for event in open_topic] == [order(number)["email"] for number in range(4)]
