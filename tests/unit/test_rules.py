"""The mesh's rules: a state in order breaks none, each cause breaks one, and what is mended breaks none again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from headrace.governance.docket import Docket, Finding
from headrace.governance.observing import Observation, Promise, Seen, Subject, TableState, TopicState, Version
from headrace.governance.rules import violations

if TYPE_CHECKING:
    from collections.abc import Sequence

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FIRST, SECOND = Version(1, 10, deleted=False, pii=("email",)), Version(2, 20, deleted=False, pii=("email", "phone"))
CONTRACT = Promise("1.0.0", "BACKWARD", 10, ("email",))
SUBJECT = Subject("BACKWARD", (FIRST,))
TABLE = TableState(1, ("email",), (10,))
ORDERS = TopicState("shop.orders", "shop.orders", "id-1", (Seen(10, 0, 0),), CONTRACT, SUBJECT, TABLE)
FOREIGN = TopicState("stray", topic_id="id-2")


def broken(state: TopicState) -> set[tuple[str, str]]:
    return {(violation.rule, violation.matter) for violation in violations(state)}


def with_versions(*versions: Version, compatibility: str = "BACKWARD") -> TopicState:
    return replace(ORDERS, subject=Subject(compatibility, versions))


CASES: Sequence[tuple[str, TopicState, set[tuple[str, str]]]] = [
    ("all is as the contract says", ORDERS, set()),
    ("a topic belongs to no product", FOREIGN, {("foreign-topic", "id-2")}),
    ("such a topic is gone", replace(FOREIGN, topic_id=None), set()),
    (
        "messages carry an id that is no version",
        replace(ORDERS, seen=(Seen(10, 0, 0), Seen(99, 0, 7), Seen(99, 1, 3))),
        {("unknown-schema-id", "99")},
    ),
    ("the topic is gone", replace(ORDERS, topic_id=None, seen=()), set()),
    (
        "messages carry the id of a version that is deleted softly",
        replace(with_versions(FIRST, replace(SECOND, deleted=True)), seen=(Seen(20, 0, 5),)),
        set(),
    ),
    (
        "a version was registered past apply, and messages carry it",
        replace(with_versions(FIRST, SECOND), seen=(Seen(10, 0, 0), Seen(20, 0, 5))),
        {("version-past-apply", "20")},
    ),
    ("such a version is deleted softly", with_versions(FIRST, replace(SECOND, deleted=True)), set()),
    (
        "the contract's own schema was registered past apply",
        replace(with_versions(FIRST, SECOND), contract=replace(CONTRACT, schema_id=20)),
        set(),
    ),
    ("versions cannot be judged without a table", replace(with_versions(FIRST, SECOND), lake=None), set()),
    (
        "the contract's schema is no version",
        replace(ORDERS, contract=replace(CONTRACT, version="2.0.0", schema_id=None)),
        {("contract-not-registered", "2.0.0")},
    ),
    (
        "the contract's version was deleted under its messages",
        replace(
            ORDERS,
            contract=replace(CONTRACT, schema_id=None),
            subject=Subject("BACKWARD", (SECOND,)),
            lake=replace(TABLE, applied=(10, 20)),
        ),
        {("contract-not-registered", "1.0.0")},
    ),
    (
        "the whole subject is gone, and its level with it",
        replace(ORDERS, contract=replace(CONTRACT, schema_id=None), subject=None),
        {("contract-not-registered", "1.0.0")},
    ),
    (
        "all versions are deleted softly, and the level with them",
        replace(
            with_versions(replace(FIRST, deleted=True), compatibility="FULL"),
            contract=replace(CONTRACT, schema_id=None),
        ),
        {("contract-not-registered", "1.0.0")},
    ),
    ("the level was lowered", with_versions(FIRST, compatibility="NONE"), {("compatibility-differs", "NONE")}),
    ("a mask is gone", replace(ORDERS, lake=replace(TABLE, masked=())), {("unmasked-pii", "email")}),
    (
        "a version is not followed yet",
        replace(with_versions(FIRST, SECOND), lake=replace(TABLE, applied=(10, 20))),
        set(),
    ),
    (
        "a version was followed without its mask",
        replace(with_versions(FIRST, SECOND), lake=TableState(2, ("email",), (10, 20))),
        {("unmasked-pii", "phone")},
    ),
    (
        "the tagged column has another name, and its old one is another field's",
        replace(
            with_versions(FIRST, replace(SECOND, pii=("address",))),
            lake=TableState(2, ("address",), (10, 20)),
        ),
        set(),
    ),
    (
        "the tagged column has another name, and is not masked under it",
        replace(with_versions(FIRST, replace(SECOND, pii=("address",))), lake=TableState(2, ("email",), (10, 20))),
        {("unmasked-pii", "address")},
    ),
    (
        "the contract masks what no schema tags",
        replace(ORDERS, contract=replace(CONTRACT, masked=("email", "seat"))),
        {("unmasked-pii", "seat")},
    ),
]


@pytest.mark.parametrize(("state", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_cause_breaks_one_rule(state: TopicState, expected: set[tuple[str, str]]) -> None:
    assert broken(state) == expected
    assert all(violation.what and violation.next for violation in violations(state))


def test_a_field_is_masked_with_the_record_around_it() -> None:
    inner = replace(FIRST, pii=("contact.email",))
    state = replace(with_versions(inner), contract=replace(CONTRACT, masked=()))
    assert broken(replace(state, lake=replace(TABLE, masked=("contact",)))) == set()
    assert broken(replace(state, lake=replace(TABLE, masked=("cont",)))) == {("unmasked-pii", "contact.email")}


def observation(sequence: int, state: TopicState) -> Observation:
    return Observation(sequence, NOON + timedelta(seconds=sequence), (), state)


def judged(docket: Docket, seen: Observation) -> list[Finding]:
    findings = list(docket.judge(seen))
    for finding in findings:
        docket.take(finding)
    return findings


LOWERED = with_versions(FIRST, compatibility="NONE")


def test_a_finding_opens_once_and_closes_when_its_cause_is_gone() -> None:
    docket = Docket()
    assert judged(docket, observation(1, ORDERS)) == []
    (opened,) = judged(docket, observation(2, LOWERED))
    assert (opened.open, opened.rule, opened.product, opened.sequence) == (
        True,
        "compatibility-differs",
        "shop.orders",
        2,
    )
    assert judged(docket, observation(3, replace(LOWERED, lake=None))) == []
    (closed,) = judged(docket, observation(4, ORDERS))
    assert (closed.open, closed.finding_id, closed.opened_at) == (False, opened.finding_id, opened.at)
    assert closed.at == NOON + timedelta(seconds=4)
    assert docket.open_count == 0


def test_the_same_cause_later_is_another_finding() -> None:
    docket = Docket()
    (first,) = judged(docket, observation(1, LOWERED))
    judged(docket, observation(2, ORDERS))
    (second,) = judged(docket, observation(3, LOWERED))
    assert first.finding_id != second.finding_id


def test_one_observation_may_open_and_close() -> None:
    docket = Docket()
    judged(docket, observation(1, LOWERED))
    found = judged(docket, observation(2, replace(ORDERS, lake=replace(TABLE, masked=()))))
    assert [(finding.open, finding.rule) for finding in found] == [
        (False, "compatibility-differs"),
        (True, "unmasked-pii"),
    ]


STORY = (ORDERS, LOWERED, FOREIGN, LOWERED, ORDERS, replace(ORDERS, lake=replace(TABLE, masked=())), ORDERS, LOWERED)


@pytest.mark.parametrize("published", range(len(STORY) + 1))
def test_an_application_that_died_anywhere_finds_the_rest_and_nothing_twice(published: int) -> None:
    """It had published what some observations led to, and had acknowledged fewer: those come again."""
    seen = [observation(number, state) for number, state in enumerate(STORY, start=1)]
    first = Docket()
    whole = [event for each in seen for event in judged(first, each)]
    before = Docket()
    done = [event for each in seen[:published] for event in judged(before, each)]
    assert whole[: len(done)] == done
    for acknowledged in range(published + 1):
        again = Docket()
        for event in done:
            again.take(event)
        assert done + [event for each in seen[acknowledged:] for event in judged(again, each)] == whole


def test_a_finding_comes_back_from_its_event() -> None:
    (opened,) = Docket().judge(observation(1, FOREIGN))
    assert Finding.from_event({**opened.to_event(), "_kafka_offset": 3}) == opened
