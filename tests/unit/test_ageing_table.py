"""A table that is committed to each second keeps few snapshots and few files, and every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.upkeep import EVERY_MOST
from headrace.sinks.upkeep.deletion import LOOK_S
from tests.bench.commits import SCHEMA, Ageing
from tests.support.lake import Lake

if TYPE_CHECKING:
    from pathlib import Path

COMMITS = 130


def test_few_snapshots_are_kept_and_every_row(tmp_path: Path) -> None:
    ageing = Ageing(Lake(tmp_path, SCHEMA))
    ageing.run(COMMITS)
    # The newest ones, and one for each minute before: a commit counts what was there before it.
    minutes = COMMITS // LOOK_S + 1
    assert max(ageing.snapshots) <= EVERY_MOST + 1 + minutes
    assert ageing.snapshots[-1] > EVERY_MOST
    assert [row["id"] for row in ageing.lake.rows("id")] == list(range(COMMITS))
    # Nothing is an hour old yet.
    assert ageing.deleted == 0
