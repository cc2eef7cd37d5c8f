"""Observations: what differs is told in words, what does not is no observation, and repeats are the same."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import fastavro
import pytest

from headrace.governance.observing import (
    Known,
    Observation,
    Promise,
    Seen,
    Subject,
    TableState,
    TopicState,
    Version,
    changes,
)
from headrace.producers.wire import Encoder
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.stack import Endpoints
from tests.support.meshes import ORDER, ORDERS, write_mesh

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FIRST = Version(1, 10, deleted=False, pii=("email",))
SECOND = Version(2, 20, deleted=False, pii=())
STATE = TopicState(
    topic="shop.orders",
    product="shop.orders",
    topic_id="id-1",
    seen=(Seen(10, 0, 5),),
    contract=Promise("1.0.0", "BACKWARD", 10, ("email",)),
    subject=Subject("BACKWARD", (FIRST,)),
    lake=TableState(1, ("email",), (10,)),
)
EMPTY = TopicState("shop.orders")

CASES: Sequence[tuple[TopicState, TopicState, list[str]]] = [
    (STATE, STATE, []),
    (
        EMPTY,
        STATE,
        [
            "it belongs to shop.orders",
            "the topic is there",
            "schema id 10 in partition 0 from offset 5 on",
            "contract 1.0.0",
            "version 1 has schema id 10",
            "the table follows version 1",
        ],
    ),
    (
        STATE,
        replace(STATE, topic_id="id-2", seen=(Seen(10, 0, 0),)),
        ["the topic was made anew", "schema id 10 in partition 0 from offset 0 on"],
    ),
    (
        STATE,
        replace(STATE, topic_id=None, seen=()),
        ["the topic is gone"],
    ),
    (
        STATE,
        replace(STATE, seen=(Seen(20, 1, 7),)),
        ["schema id 20 in partition 1 from offset 7 on", "no message with schema id 10 in partition 0 any more"],
    ),
    (
        STATE,
        replace(STATE, contract=Promise("1.1.0", "FULL", None, ())),
        [
            "contract 1.0.0 became 1.1.0",
            "the contract's level BACKWARD became FULL",
            "the contract's schema is not registered",
            "no longer: the contract masks email",
        ],
    ),
    (
        STATE,
        replace(STATE, subject=Subject("NONE", (replace(FIRST, deleted=True), SECOND))),
        ["level BACKWARD became NONE", "version 1 was deleted softly", "version 2 has schema id 20"],
    ),
    (
        STATE,
        replace(STATE, subject=Subject("BACKWARD", (SECOND,))),
        ["version 2 has schema id 20", "version 1 was deleted"],
    ),
    (STATE, replace(STATE, subject=None), ["the registry has no version of the subject"]),
    (
        STATE,
        replace(STATE, lake=TableState(2, (), (10, 20))),
        ["the table follows version 2", "no longer: the table masks email", "apply has registered schema id 20"],
    ),
    (STATE, replace(STATE, lake=None), ["the table is gone"]),
    (STATE, replace(STATE, product=None, contract=None), ["it belongs to no product", "the contract is gone"]),
]


@pytest.mark.parametrize(("before", "after", "words"), CASES, ids=[(case[2] or ["nothing"])[0] for case in CASES])
def test_what_differs_is_told_in_words(before: TopicState, after: TopicState, words: list[str]) -> None:
    assert list(changes(before, after)) == words
    assert (before == after) == (not words)


def test_what_does_not_differ_is_no_observation() -> None:
    known = Known()
    first = known.next(STATE, NOON)
    assert first is not None
    assert (first.sequence, first.state) == (1, STATE)
    known.take(first)
    assert known.next(STATE, NOON) is None
    second = known.next(EMPTY, NOON)
    assert second is not None
    assert (second.sequence, second.changes[-1]) == (2, "the table is gone")
    known.take(second)
    assert known.next(EMPTY, NOON) is None


def test_the_newest_observation_counts_in_whatever_order_they_come() -> None:
    known = Known()
    newer, older = Observation(2, NOON, (), STATE), Observation(1, NOON, (), EMPTY)
    for each in (newer, older, newer):
        known.take(each)
    assert known.state("shop.orders") == STATE
    assert known.topics() == {"shop.orders"}
    known.take(Observation(3, NOON, (), EMPTY))
    assert known.topics() == frozenset()


def test_a_repeat_carries_the_same_id_and_nothing_else_does() -> None:
    first = Observation(1, NOON, (), STATE)
    assert Observation(1, NOON.replace(hour=13), ("other words",), EMPTY).observation_id == first.observation_id
    others = [Observation(2, NOON, (), STATE), Observation(1, NOON, (), replace(STATE, topic="shop.returns"))]
    assert len({first.observation_id, *(each.observation_id for each in others)}) == 3


@pytest.mark.parametrize("state", [STATE, EMPTY, replace(STATE, contract=replace(STATE.contract, schema_id=None))])  # type: ignore[type-var]  # it has a contract
def test_an_observation_comes_back_from_its_event(state: TopicState) -> None:
    seen = Observation(7, NOON, ("the topic is there",), state)
    event = seen.to_event()
    assert Observation.from_event(event) == seen
    # A later version of the schema may have more to say.
    assert Observation.from_event({**event, "weather": "fair"}) == seen


def test_the_products_own_schema_carries_what_is_observed(tmp_path: Path) -> None:
    write_mesh(tmp_path, Endpoints("localhost:1", "http://localhost:1"), "t.", {ORDERS: ORDER})
    product = load_mesh(tmp_path, environment="cluster").product("governance.observations")
    key, value = Encoder(product, 1).encode(Observation(1, NOON, ("words",), STATE).to_event())
    assert key == b"shop.orders"
    body = io.BytesIO(value[5:])
    event = fastavro.schemaless_reader(body, product.schema.parsed, product.schema.parsed)
    assert isinstance(event, dict)
    assert Observation.from_event(event) == Observation(1, NOON, ("words",), STATE)
