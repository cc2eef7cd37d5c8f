"""An operator's orders and a table's changes by every way in which a commit may fail: asked again, each lands once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import Unavailable
from headrace.sinks.evolution import follow, followed_version
from headrace.sinks.hold import hold, hold_of, release
from headrace.sinks.landing import Step
from tests.support.faulty import CommitFault, Crash, FaultyCatalog
from tests.support.lake import Lake, verdicts_of
from tests.support.stages import Stage, crash
from tests.support.versions import schema_of
from tests.support.workers import At

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOTE = {"name": "note", "type": ["null", "string"], "default": None}
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def asked_until_answered(order: Callable[[], object]) -> int:
    """Ask as an operator does, who comes back after each failure; return how often."""
    for times in range(1, 10):
        try:
            order()
        except (Unavailable, Crash):
            continue
        return times
    raise AssertionError("it is never answered")


@pytest.mark.parametrize("fault", CommitFault)
def test_a_hold_and_a_release_between_two_batches(stage: Stage, fault: CommitFault) -> None:
    with pytest.raises(Crash):
        stage.worker(At(Step.FILES, 2, crash)).run()
    catalog = stage.catalog()
    catalog.fault = fault
    asked_until_answered(lambda: hold(catalog, stage.product, "a test", NOON))
    assert hold_of(load_table(stage.catalog(), stage.product)) is not None
    held_at = len(load_table(stage.catalog(), stage.product).snapshots())
    # The first batch's snapshot, and one of the hold.
    assert held_at == 2
    catalog.fault = fault
    asked_until_answered(lambda: release(catalog, stage.product))
    assert hold_of(load_table(stage.catalog(), stage.product)) is None
    stage.worker().run()
    stage.assert_exactly_once()


@pytest.mark.parametrize("fault", CommitFault)
def test_a_table_follows_each_version_once(tmp_path: Path, fault: CommitFault) -> None:
    one, two = schema_of(), schema_of(NOTE)
    lake = Lake(tmp_path, one)
    verdicts = verdicts_of(lake.product, one, two)
    follow(lake.catalog, lake.product, verdicts_of(lake.product, one))
    catalog = FaultyCatalog("shop", **lake.catalog.properties)
    catalog.fault = fault
    asked_until_answered(lambda: follow(catalog, lake.product, verdicts))
    follow(catalog, lake.product, verdicts)
    table = lake.reload()
    assert followed_version(table) == 2
    assert [field.name for field in table.schema().fields].count("note") == 1
    assert len(table.metadata.schemas) == 2
