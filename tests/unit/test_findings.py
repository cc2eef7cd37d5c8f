"""Findings as they are shown: the newest state of each, by product, open ones alone, for people and for programs."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from headrace.governance.docket import Docket
from headrace.governance.findings import FindingsRead, newest
from headrace.governance.observing import Observation, Promise, Subject, TopicState, Version
from headrace.schemas.errors import Unavailable
from headrace.selfserve.findings import chosen_findings, show_findings, show_trouble, write_findings

if TYPE_CHECKING:
    from headrace.governance.docket import Finding

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LOWERED = TopicState(
    topic="shop.orders",
    product="shop.orders",
    topic_id="id",
    contract=Promise("1.0.0", "BACKWARD", 10, ()),
    subject=Subject("NONE", (Version(1, 10, deleted=False, pii=()),)),
)


def story() -> list[Finding]:
    """A level is lowered, a stray topic appears, the level is raised."""
    docket, events = Docket(), []
    raised = replace(LOWERED, subject=None)
    for seconds, (sequence, state) in enumerate([(1, LOWERED), (1, TopicState("stray", topic_id="x")), (2, raised)]):
        for finding in docket.judge(Observation(sequence, NOON + timedelta(seconds=seconds), (), state)):
            docket.take(finding)
            events.append(finding)
    return events


@pytest.fixture
def read() -> FindingsRead:
    return FindingsRead(newest(event.to_event() for event in story()))


def test_a_finding_is_shown_once_as_it_is_now(read: FindingsRead) -> None:
    assert [(finding.topic, finding.open) for finding in read.findings] == [("shop.orders", False), ("stray", True)]
    backwards = [event.to_event() for event in reversed(story())] * 2
    assert newest(backwards) == read.findings


def test_findings_are_chosen_by_product_and_by_being_open(read: FindingsRead) -> None:
    assert [finding.topic for finding in chosen_findings(read, None, only_open=True)] == ["stray"]
    assert [finding.topic for finding in chosen_findings(read, "shop.orders", only_open=False)] == ["shop.orders"]
    assert chosen_findings(read, "shop.orders", only_open=True) == []


def test_people_get_a_table_and_a_sum(read: FindingsRead) -> None:
    out = io.StringIO()
    show_findings(read.findings, out)
    text = out.getvalue()
    assert "2026-01-01 12:00:00" in text
    assert "topic stray" in text
    assert text.endswith("2 rows\n1 open\n")
    out = io.StringIO()
    show_findings([], out)
    assert out.getvalue() == "no findings\n"


def test_programs_get_every_field(read: FindingsRead) -> None:
    out = io.StringIO()
    write_findings(read.findings, out)
    first, second = json.loads(out.getvalue())
    assert (first["status"], first["opened_at"], first["at"]) == (
        "CLOSED",
        "2026-01-01T12:00:00+00:00",
        "2026-01-01T12:00:02+00:00",
    )
    assert (second["product"], second["rule"], second["matter"]) == (None, "foreign-topic", "x")


def test_what_could_not_be_read_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show_trouble(FindingsRead((), Unavailable("Kafka does not answer"), NOON))
    show_trouble(FindingsRead(()))
    assert capsys.readouterr().err == (
        "warning: Kafka does not answer: this is the table alone, as of 2026-01-01 12:00:00 UTC\n"
    )
