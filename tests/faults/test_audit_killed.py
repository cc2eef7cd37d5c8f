"""Auditors that are killed, doubled, stopped: no finding is lost, and none is there twice."""

from __future__ import annotations

import random
import signal
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient

from headrace.governance.findings import look
from headrace.governance.judge import FINDINGS
from headrace.governance.scanner import OBSERVATIONS
from headrace.schemas.registry import Registry
from headrace.streams.admin import Admin
from tests.support.audits import FoundSoFar, Published, auditing
from tests.support.meshes import ORDERS
from tests.support.sinks import assert_exactly_once, caught_up, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

# Members of a group that were killed are missed after 6 s here, and a worker takes some seconds to begin.
TAKEOVER_S = 15.0
KILLS = 6


def made_by_hand(mesh: Mesh, number: int) -> str:
    """Make a topic that belongs to no product."""
    name = f"{mesh.environment.topic_prefix}by_hand_{number}"
    Admin(mesh.environment.kafka_config()).create(name, partitions=1, config={})
    return name


def assert_nothing_doubled(mesh: Mesh) -> None:
    """Check that each event is in its topic once, and that no observation is left out."""
    with Published(mesh, FINDINGS) as findings, Published(mesh, OBSERVATIONS) as observations:
        assert eventually(lambda: bool(findings.look() and observations.look()))
        event_ids = [event["event_id"] for event in findings.look()]
        assert len(event_ids) == len(set(event_ids))
        seen = observations.look()
    assert len({event["observation_id"] for event in seen}) == len(seen)
    for _, group in groupby(sorted(seen, key=itemgetter("topic")), itemgetter("topic")):
        numbers = [event["sequence"] for event in group]
        assert numbers == list(range(1, len(numbers) + 1))


def test_auditors_that_are_killed_at_any_moment_lose_and_double_nothing(mesh: Mesh, tmp_path: Path) -> None:
    chance = random.Random()
    orders = mesh.product(ORDERS)
    topics = []
    with FoundSoFar(mesh) as found, Registry(mesh.environment.registry_config()) as registry:
        for kill in range(KILLS):
            with auditing(mesh, tmp_path / f"{kill}.log", warm=chance.random() < 0.7) as audit:
                topics.append(made_by_hand(mesh, kill))
                registry.set_compatibility(orders.subject, "NONE" if kill % 2 else "BACKWARD")
                moment_s = chance.uniform(0, 4)
                eventually(lambda: bool(found.of(topics[-1])), within_s=moment_s)
                audit.signal(signal.SIGKILL)
                audit.wait()
        registry.set_compatibility(orders.subject, orders.contract.compatibility)
        admin = AdminClient({**mesh.environment.kafka_config()})
        for future in admin.delete_topics(topics[:3]).values():
            future.result()
        with auditing(mesh, tmp_path / "last.log", "--until-caught-up", warm=False) as last:
            assert last.wait(240) == 0, last.text()
        for topic in topics:
            opened = [finding for finding in found.of(topic) if finding.open]
            closed = [finding for finding in found.of(topic) if not finding.open]
            gone = topic in topics[:3]
            # What was gone before anybody looked was never there.
            assert len(opened) == 1 or (gone and not opened)
            assert len(closed) == len(opened) * gone
        levels = found.of(orders.topic)
        assert [finding.open for finding in levels] == [True, False] * (len(levels) // 2)
    assert_nothing_doubled(mesh)
    caught_up(mesh, FINDINGS, OBSERVATIONS)
    assert_exactly_once(mesh, FINDINGS, OBSERVATIONS)
    assert [finding.topic for finding in look(mesh).findings if finding.open] == topics[3:]


@pytest.mark.parametrize("killed", ["first", "second"])
def test_another_auditor_takes_over_from_one_that_is_killed(mesh: Mesh, tmp_path: Path, killed: str) -> None:
    """The first scans; either of them judges, as Kafka's group decides."""
    prefix = mesh.environment.topic_prefix
    with ExitStack() as stack:
        found = stack.enter_context(FoundSoFar(mesh))
        audits = {
            "first": stack.enter_context(auditing(mesh, tmp_path / "first.log")),
            "second": stack.enter_context(auditing(mesh, tmp_path / "second.log", warm=False)),
        }
        assert eventually(audits["second"].has_a_part), audits["second"].text()
        found.within(TAKEOVER_S, lambda: made_by_hand(mesh, 1), f"{prefix}by_hand_1")
        assert not audits["second"].logged("event=scanning")
        audits.pop(killed).signal(signal.SIGKILL)
        found.within(TAKEOVER_S, lambda: made_by_hand(mesh, 2), f"{prefix}by_hand_2")
        (left,) = audits.values()
        assert left.scans_and_judges()
        left.signal(signal.SIGTERM)
        assert left.wait() == 0, left.text()
    assert_nothing_doubled(mesh)


def test_an_audit_until_caught_up_beside_one_that_runs_disturbs_nothing(mesh: Mesh, tmp_path: Path) -> None:
    with auditing(mesh, tmp_path / "first.log") as first, FoundSoFar(mesh) as found:
        topic = made_by_hand(mesh, 1)
        with auditing(mesh, tmp_path / "second.log", "--until-caught-up", warm=False) as second:
            assert second.wait() == 0, second.text()
        assert [finding.open for finding in found.of(topic)] == [True]
        found.within(10, lambda: made_by_hand(mesh, 2), f"{mesh.environment.topic_prefix}by_hand_2")
        first.signal(signal.SIGINT)
        assert first.wait() == 130
    assert_nothing_doubled(mesh)
