"""Each kind of file of a table by each way in which a storage may fail: each event ends in the table exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.sinks.landing import Step
from tests.support.faulty import Crash
from tests.support.faulty_storage import WRITTEN, Disk, Trouble
from tests.support.stages import Stage, crash
from tests.support.workers import At

if TYPE_CHECKING:
    from pathlib import Path

FIRST, LATER = 1, 2
FAILING = [Trouble.FULL, Trouble.UNKNOWN]
READ = [kind for kind in WRITTEN if kind != "data files"]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.parametrize("batch", [FIRST, LATER])
@pytest.mark.parametrize("trouble", FAILING)
@pytest.mark.parametrize("kind", WRITTEN)
def test_a_file_that_cannot_be_written_delays_a_batch(stage: Stage, kind: str, trouble: Trouble, batch: int) -> None:
    disk = Disk()
    worker = stage.worker(At(Step.LETTERS, batch, lambda: disk.trouble(trouble, 2, WRITTEN[kind])), stage.on(disk))
    worker.run()
    assert len(disk.met) == 2
    assert len(worker.unknown) == 2
    assert worker.stale == []
    stage.assert_exactly_once()


@pytest.mark.parametrize("trouble", FAILING)
@pytest.mark.parametrize("kind", WRITTEN)
def test_a_worker_that_dies_after_a_file_that_could_not_be_written(stage: Stage, kind: str, trouble: Trouble) -> None:
    disk = Disk()
    arm = At(Step.LETTERS, LATER, lambda: disk.trouble(trouble, 1, WRITTEN[kind]))

    def observe(step: Step) -> None:
        arm(step)
        if disk.met:
            crash()

    with pytest.raises(Crash):
        stage.worker(observe, stage.on(disk)).run()
    stage.worker().run()
    stage.assert_exactly_once()


@pytest.mark.parametrize("batch", [FIRST, LATER])
@pytest.mark.parametrize("kind", WRITTEN)
def test_a_rival_that_lands_while_a_file_is_being_written(stage: Stage, kind: str, batch: int) -> None:
    disk, rival = Disk(), stage.worker()

    def arm() -> None:
        disk.trouble(Trouble.LATE, 1, WRITTEN[kind], meanwhile=rival.run)

    worker = stage.worker(At(Step.LETTERS, batch, arm), stage.on(disk))
    worker.run()
    assert len(disk.met) == 1
    assert rival.begun
    assert len(worker.stale) == 1
    stage.assert_exactly_once()


@pytest.mark.parametrize("kind", READ)
def test_a_file_that_cannot_be_read_for_a_while_delays_a_batch(stage: Stage, kind: str) -> None:
    disk = Disk()
    worker = stage.worker(
        At(Step.LETTERS, LATER, lambda: disk.trouble(Trouble.UNREADABLE, 2, WRITTEN[kind])), stage.on(disk)
    )
    worker.run()
    # What was read before need not be read again: only the table's metadata is read for each look.
    assert disk.met if kind == "metadata" else True
    assert len(worker.unknown) == len(disk.met)
    stage.assert_exactly_once()


@pytest.mark.parametrize("batch", [FIRST, LATER])
def test_a_rival_that_lands_while_the_table_s_metadata_is_being_read(stage: Stage, batch: int) -> None:
    disk, rival = Disk(), stage.worker()

    def arm() -> None:
        disk.trouble(Trouble.READ_LATE, 1, WRITTEN["metadata"], meanwhile=rival.run)

    worker = stage.worker(At(Step.LETTERS, batch, arm), stage.on(disk))
    worker.run()
    assert len(disk.met) == 1
    assert len(worker.stale) == 1
    stage.assert_exactly_once()
