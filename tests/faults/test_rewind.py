"""Rollbacks by command beside running sinks: what was taken back is read again, or left out for good, on record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from headrace.schemas.catalog import open_catalog
from headrace.selfserve.main import main
from headrace.sinks import glance
from headrace.sinks.hold import hold, hold_of
from headrace.sinks.landing import Step
from tests.support.meshes import ORDERS, ids
from tests.support.sinks import assert_exactly_once, caught_up, eventually, running
from tests.support.topics import delete_records, ledger_of, make_anew, publish, table_of
from tests.support.workers import At

if TYPE_CHECKING:
    import pytest

    from headrace.schemas.mesh import Mesh


def command(mesh: Mesh, *words: str) -> int:
    return main(["--mesh", str(mesh.root), "--environment", "cluster", *words])


def landed(mesh: Mesh, numbers: range) -> int:
    """Land events and return main's head."""
    publish(mesh, ORDERS, numbers)
    assert all(caught_up(mesh).outcomes.values())
    return head_of(mesh)


def head_of(mesh: Mesh) -> int:
    head = table_of(mesh).metadata.current_snapshot_id
    assert head is not None
    return head


def names(*ranges: range) -> list[str]:
    return sorted(f"o{number}" for each in ranges for number in each)


def test_reread_beside_a_running_sink(
    mesh: Mesh, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glance, "GLANCE_S", 0.5)
    first = landed(mesh, range(50))
    with running(mesh) as sink:
        publish(mesh, ORDERS, range(50, 100))
        assert eventually(lambda: sink.rows(ORDERS) == 50)
        assert command(mesh, "rollback", ORDERS, "--to", str(first), "--reread", "--yes") == 0
        # Not one event more is needed.
        assert eventually(lambda: len(ids(mesh)) == 100)
        publish(mesh, ORDERS, range(100, 110))
        assert eventually(lambda: len(ids(mesh)) == 110)
    assert sink.outcomes == {ORDERS: True}
    assert hold_of(table_of(mesh)) is None
    assert ids(mesh) == names(range(110))
    assert_exactly_once(mesh)
    said = capsys.readouterr().err
    assert f"goes back to snapshot {first}" in said
    assert "to read again" in said
    assert "50 rows, in the place of 100" in said


def test_skip_beside_a_running_sink(mesh: Mesh) -> None:
    first = landed(mesh, range(50))
    with running(mesh) as sink:
        publish(mesh, ORDERS, range(50, 100))
        assert eventually(lambda: sink.rows(ORDERS) == 50)
        assert command(mesh, "rollback", ORDERS, "--to", str(first), "--skip", "--yes") == 0
        publish(mesh, ORDERS, range(100, 110))
        assert eventually(lambda: len(ids(mesh)) == 60)
    assert sink.outcomes == {ORDERS: True}
    assert ids(mesh) == names(range(50), range(100, 110))
    accepted = ledger_of(mesh).accepted
    assert sum(gap.end - gap.first for gaps in accepted.values() for gap in gaps) == 50
    assert_exactly_once(mesh)
    # Built anew from Kafka, what was left out comes back.
    assert command(mesh, "replay", ORDERS, "--from", "earliest", "--yes") == 0
    assert ids(mesh) == names(range(110))
    assert ledger_of(mesh).accepted == {}
    assert_exactly_once(mesh)


def test_a_batch_that_was_about_to_be_committed_is_read_again(mesh: Mesh) -> None:
    """The rollback comes between a sink's look at the table and its commit."""
    first = landed(mesh, range(50))
    landed(mesh, range(50, 100))
    statuses: list[int] = []

    def roll() -> None:
        statuses.append(command(mesh, "rollback", ORDERS, "--to", str(first), "--reread", "--yes"))

    publish(mesh, ORDERS, range(100, 120))
    at = At(Step.COMMIT, 1, roll)
    with running(mesh, observe=at) as sink:
        assert eventually(lambda: statuses == [0])
        assert eventually(lambda: len(ids(mesh)) == 120)
    assert sink.outcomes == {ORDERS: True}
    assert ids(mesh) == names(range(120))
    assert_exactly_once(mesh)


def test_a_hold_that_was_there_stays(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    first = landed(mesh, range(20))
    landed(mesh, range(20, 40))
    product = mesh.product(ORDERS)
    assert command(mesh, "hold", ORDERS, "--reason", "we look into it") == 0
    assert command(mesh, "rollback", ORDERS, "--to", str(first), "--reread", "--yes") == 0
    found = hold_of(table_of(mesh))
    assert found is not None
    assert found.reason == "we look into it"
    assert "we look into it; it stays so" in capsys.readouterr().err
    assert command(mesh, "release", ORDERS) == 0
    assert all(caught_up(mesh).outcomes.values())
    assert ids(mesh) == names(range(40))
    # One that a killed rollback left behind is its own.
    catalog = open_catalog(mesh.environment, mesh.domain_of(product))
    since = found.since
    assert since is not None
    hold(catalog, product, "headrace rollback is under way", since)
    assert command(mesh, "rollback", ORDERS, "--to", str(first), "--reread", "--yes") == 0
    assert hold_of(table_of(mesh)) is None
    assert all(caught_up(mesh).outcomes.values())
    assert_exactly_once(mesh)


def test_what_cannot_be_read_again_is_refused_and_nothing_is_held(
    mesh: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    first = landed(mesh, range(20))
    publish(mesh, ORDERS, range(20, 40), partition=0)
    last = landed(mesh, range(40, 40))
    position = ledger_of(mesh).next(0)
    delete_records(mesh, mesh.product(ORDERS), {0: position - 5})
    before = table_of(mesh).metadata_location
    assert command(mesh, "rollback", ORDERS, "--to", str(first), "--reread", "--yes") == 1
    said = capsys.readouterr().err
    assert "Kafka has deleted offsets" in said
    assert f"to {position - 6} of partition 0" in said
    assert "--skip" in said
    assert "Traceback" not in said
    assert table_of(mesh).metadata_location == before
    assert command(mesh, "rollback", ORDERS, "--to", str(first), "--skip", "--yes") == 0
    assert ids(mesh) == names(range(20))
    # And back again, all of it: the snapshot has its rows.
    assert command(mesh, "rollback", ORDERS, "--to", str(last), "--skip", "--yes") == 0
    assert ids(mesh) == names(range(40))
    landed(mesh, range(40, 50))
    assert ids(mesh) == names(range(50))
    assert_exactly_once(mesh)


def test_over_a_topic_that_was_made_anew(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    first = landed(mesh, range(30))
    make_anew(mesh, mesh.product(ORDERS))
    publish(mesh, ORDERS, range(30, 50))
    (stopped,) = caught_up(mesh).logged("stopped")
    assert f"headrace accept-topic {ORDERS}" in stopped["next"]
    assert command(mesh, "accept-topic", ORDERS, "--yes") == 0
    landed(mesh, range(50, 60))
    assert ids(mesh) == names(range(60))
    assert_exactly_once(mesh)
    capsys.readouterr()
    assert command(mesh, "rollback", ORDERS, "--to", str(first), "--reread", "--yes") == 1
    said = capsys.readouterr().err
    assert "the snapshot is of generation 1, the table of generation 2" in said
    assert command(mesh, "rollback", ORDERS, "--to", str(first), "--skip", "--yes") == 0
    assert ids(mesh) == names(range(30))
    landed(mesh, range(60, 70))
    assert ids(mesh) == names(range(30), range(60, 70))
    assert command(mesh, "replay", ORDERS, "--from", "earliest", "--yes") == 0
    assert ids(mesh) == names(range(70))
    assert_exactly_once(mesh)


def test_snapshots_and_a_rollback_to_a_time(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    first = landed(mesh, range(20))
    second = landed(mesh, range(20, 40))
    capsys.readouterr()
    assert command(mesh, "snapshots", ORDERS, "--format", "json") == 0
    listed = json.loads(capsys.readouterr().out)["snapshots"]
    assert [entry["snapshot"] for entry in listed] == [str(second), str(first)]
    assert [entry["rows"] for entry in listed] == [40, 20]
    assert listed[0]["standing"] == "current"
    assert sum(listed[1]["positions"].values()) == 20
    assert command(mesh, "snapshots", ORDERS) == 0
    assert str(first) in capsys.readouterr().out
    assert command(mesh, "rollback", ORDERS, "--to", "1999-12-31T23:59Z", "--reread", "--yes") == 1
    assert f"headrace snapshots {ORDERS}" in capsys.readouterr().err
    for words, status, what in (
        (("--to", "yesterday", "--skip"), 2, "neither a snapshot's id nor a time"),
        (("--to", "5", "--skip"), 1, "main has no snapshot 5"),
        (("--to", str(first)), 2, "what is to become of the events"),
        (("--to", str(first), "--skip"), 1, "nobody is at a terminal"),
    ):
        assert command(mesh, "rollback", ORDERS, *words) == status
        said = capsys.readouterr().err
        assert what in said
        assert "Traceback" not in said
    assert command(mesh, "rollback", ORDERS, "--to", "2999-01-01", "--reread", "--yes") == 0
    assert ids(mesh) == names(range(40))
    assert_exactly_once(mesh)
