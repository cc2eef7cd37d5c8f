"""An auditor whose servers go away: it waits, says what for, and goes on."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from headrace.governance.findings import look
from headrace.governance.judge import FINDINGS
from headrace.streams.admin import Admin
from tests.support.audits import FoundSoFar, auditing, is_at_rest
from tests.support.servers import kill
from tests.support.sinks import caught_up, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.selfserve.stack.embedded import EmbeddedStack
    from tests.support.meshes import Cluster

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

# One stack for all of them, in one process of the test run.


@pytest.mark.parametrize("server", ["kafka", "registry"])
def test_an_auditor_waits_for_a_server_and_goes_on(
    stack: EmbeddedStack, own: Cluster, tmp_path: Path, prefix: str, server: str
) -> None:
    mesh = own.applied(tmp_path / "mesh", prefix=prefix)
    name = f"{prefix}by_hand"
    with auditing(mesh, tmp_path / "audit.log") as audit:
        assert eventually(lambda: audit.logged("event=observed") and is_at_rest(mesh))
        kill(stack, server)
        assert eventually(lambda: audit.logged("event=waiting")), audit.text()
        stack.up(die_with_parent=True, progress=lambda _: None)
        with FoundSoFar(mesh) as found:
            Admin(mesh.environment.kafka_config()).create(name, partitions=1, config={})
            # Usually within seconds. What Kafka's transactions were at when it was killed may take them two time-outs.
            assert eventually(lambda: len(found.of(name)) == 1, within_s=200), audit.text()
        audit.signal(signal.SIGTERM)
        assert audit.wait() == 0, audit.text()


def test_an_auditor_that_waits_for_kafka_ends_when_it_is_told_to(
    stack: EmbeddedStack, own: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = own.applied(tmp_path / "mesh", prefix=prefix)
    with auditing(mesh, tmp_path / "audit.log") as audit:
        assert eventually(lambda: audit.logged("event=observed") and is_at_rest(mesh))
        kill(stack, "kafka")
        assert eventually(lambda: audit.logged("event=waiting")), audit.text()
        audit.signal(signal.SIGTERM)
        assert audit.wait() == 0, audit.text()
    # It waits from its start on, too.
    with auditing(mesh, tmp_path / "late.log", warm=False) as late:
        assert eventually(lambda: late.logged("event=waiting")), late.text()
        stack.up(die_with_parent=True, progress=lambda _: None)
        assert eventually(late.scans_and_judges, within_s=200), late.text()
        assert "Traceback" not in audit.text() + late.text()


def test_findings_are_shown_from_the_table_alone_while_kafka_is_down(
    stack: EmbeddedStack, own: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = own.applied(tmp_path / "mesh", prefix=prefix)
    Admin(mesh.environment.kafka_config()).create(f"{prefix}by_hand", partitions=1, config={})
    with auditing(mesh, tmp_path / "audit.log", "--until-caught-up", warm=False) as audit:
        assert audit.wait() == 0, audit.text()
    before = look(mesh)
    assert before.trouble is None
    assert [finding.topic for finding in before.findings] == [f"{prefix}by_hand"]
    caught_up(mesh, FINDINGS)
    kill(stack, "kafka")
    alone = look(mesh)
    assert alone.trouble is not None
    assert alone.as_of is not None
    assert alone.findings == before.findings
