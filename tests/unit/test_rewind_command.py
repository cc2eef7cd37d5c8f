"""Commands that take a table back, where no broker is needed: what a broken-off replay has left, and holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pytest

from headrace.schemas.catalog import open_catalog
from headrace.schemas.errors import ProductStopped
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.main import main
from headrace.selfserve.stack import Endpoints
from headrace.sinks.hold import hold, hold_of
from headrace.sinks.past_snapshots import past_snapshots
from headrace.sinks.replay.boundary import BRANCH, Boundary, Note
from headrace.sinks.replay.cut import begin_branch, cut_branch
from headrace.sinks.replay.plan import Plan
from headrace.sinks.replay.steps import Replay, Step
from headrace.sinks.replay.swap import swap
from headrace.streams.history import last_commit
from tests.support.meshes import ORDER, ORDERS, write_mesh
from tests.support.rewinding import Shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.faulty import FaultyCatalog

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    write_mesh(tmp_path, Endpoints("127.0.0.1:9", "http://127.0.0.1:9"), "t.", {ORDERS: ORDER})
    mesh = load_mesh(tmp_path, environment="cluster")
    product = mesh.product(ORDERS)
    shop = Shop(cast("FaultyCatalog", open_catalog(mesh.environment, mesh.domain_of(product))), product)
    shop.land(4)
    return shop


def command(folder: Path, *words: str) -> int:
    return main(["--mesh", str(folder), "--environment", "cluster", *words])


def begun(shop: Shop) -> None:
    note = Note("earliest", Boundary(1, {0: 0, 1: 0}), shop.head())
    begin_branch(shop.catalog, shop.product, note)


def test_what_a_replay_has_left_is_told_and_given_up(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "snapshots", ORDERS) == 0
    assert "replay" not in capsys.readouterr().out
    begun(shop)
    hold(shop.catalog, shop.product, "headrace replay is under way", NOON)
    assert command(tmp_path, "snapshots", ORDERS) == 0
    told = capsys.readouterr().out
    assert f"headrace replay {ORDERS} --from earliest goes on" in told
    assert f"headrace replay {ORDERS} --abandon gives it up" in told
    assert command(tmp_path, "snapshots", ORDERS, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["replay_from"] == "earliest"

    assert command(tmp_path, "replay", ORDERS, "--abandon") == 1
    assert "--yes" in capsys.readouterr().err
    assert BRANCH in shop.table().metadata.refs
    assert command(tmp_path, "replay", ORDERS, "--abandon", "--yes") == 0
    assert "given up" in capsys.readouterr().err
    assert BRANCH not in shop.table().metadata.refs
    assert hold_of(shop.table()) is None, "a replay that was killed has left it"
    assert shop.holds(4)
    assert command(tmp_path, "replay", ORDERS, "--abandon") == 0
    assert "no replay was under way" in capsys.readouterr().err


def test_after_a_replay_the_last_commit_is_one_that_can_be_gone_back_to(shop: Shop) -> None:
    landed = shop.head()
    begun(shop)
    cut_branch(shop.catalog, shop.product, lambda _: None)
    shop.land(4, BRANCH)
    swap(shop.catalog, shop.product, shop.head())
    commit, table = last_commit(shop.table()), shop.table()
    assert commit is not None
    assert commit.snapshot_id == landed
    assert commit.snapshot_id in {past.snapshot_id for past in past_snapshots(table.metadata)}


def test_giving_up_a_replay_leaves_an_operators_hold(shop: Shop, tmp_path: Path) -> None:
    begun(shop)
    hold(shop.catalog, shop.product, "we look into it", NOON)
    assert command(tmp_path, "replay", ORDERS, "--abandon", "--yes") == 0
    assert hold_of(shop.table()) is not None


def test_a_replay_that_met_a_fault_says_how_it_goes_on(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(Note("earliest", Boundary(1, {0: 0}), shop.head()), shop.ledger(), None)
    monkeypatch.setattr("headrace.sinks.replay.plan.plan_replay", lambda *_: plan)
    goes_on = f"once the fault below is mended: headrace replay {ORDERS} --from earliest goes on, --abandon gives it up"
    for step, hint, told in (
        (Step.DRAIN, "mend the contract", True),
        (Step.DRAIN, f"begin anew: headrace replay {ORDERS} --restart --from earliest", False),
        (Step.SWAP, "run it again", False),
    ):

        def stops(replay: Replay, _plan: Plan, *, step: Step = step, hint: str = hint) -> int:
            replay.observe(step)
            raise ProductStopped("no table can follow it", where="topic shop.orders", hint=hint)

        monkeypatch.setattr(Replay, "run", stops)
        assert command(tmp_path, "replay", ORDERS, "--from", "earliest", "--yes") == 1
        said = capsys.readouterr().err
        assert hint in said
        assert (goes_on in said) is told


def test_a_rollback_that_is_interrupted_says_where_to_look(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shop.head()
    shop.land(8)

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("headrace.sinks.rollback.land_rollback", interrupted)
    assert command(tmp_path, "rollback", ORDERS, "--to", str(first), "--skip", "--yes") == 130
    assert f"headrace snapshots {ORDERS} shows whether the table was taken back" in capsys.readouterr().err
    assert hold_of(shop.table()) is None


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "say where to begin"),
        (["--restart"], "say where to begin"),
        (["--abandon", "--from", "earliest"], "--abandon builds nothing"),
        (["--abandon", "--restart"], "--abandon builds nothing"),
        (["--from", "yesterday"], "neither a snapshot's id nor a time"),
        (["--from", "Earliest"], "--from earliest"),
    ],
)
def test_options_that_make_no_sense_change_nothing(
    shop: Shop, tmp_path: Path, words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(shop)
    assert command(tmp_path, "replay", ORDERS, "--yes", *words) == 2
    assert what in capsys.readouterr().err
    assert BRANCH in shop.table().metadata.refs


def test_after_a_rollback_under_an_operators_hold_the_release_is_next(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shop.head()
    shop.land(8)
    hold(shop.catalog, shop.product, "we look into it", NOON)
    words = ("rollback", ORDERS, "--to", str(first), "--skip", "--yes")
    assert command(tmp_path, *words) == 0
    said = capsys.readouterr().err
    assert f"next: headrace release {ORDERS}" in said
    assert "go on by themselves" not in said
    assert command(tmp_path, "release", ORDERS) == 0
    capsys.readouterr()
    assert command(tmp_path, *words) == 0
    assert "go on by themselves" in capsys.readouterr().err
    assert shop.holds(4)
