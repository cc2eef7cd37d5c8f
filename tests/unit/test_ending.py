"""A command that is told to end leaves nothing behind: its temporary files least of all."""

from __future__ import annotations

import json
import signal
import tempfile
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from headrace.governance.rows import spilled
from headrace.schemas.avro import AvroSchema
from headrace.selfserve.ending import ended_by_signals
from tests.support.lake import Lake
from tests.support.meshes import ORDER

if TYPE_CHECKING:
    from pathlib import Path

EVENT = pa.struct([("id", pa.string()), ("amount", pa.int64()), ("email", pa.string())])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake", AvroSchema.parse(json.dumps(ORDER)))
    lake.add(pa.array([{"id": str(number), "amount": 1, "email": None} for number in range(1_000)], EVENT))
    return lake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_proof_that_is_told_to_end_takes_its_files_away(lake: Lake, folder: Path, number: signal.Signals) -> None:
    def proof() -> None:
        with ended_by_signals(), spilled(lake.table, lake.product.name) as rows:
            assert rows.places
            assert list(folder.iterdir())
            signal.raise_signal(number)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        proof()
    assert not list(folder.iterdir())
    assert signal.getsignal(number) is before


def test_two_proofs_at_once_are_in_each_others_way_in_nothing(lake: Lake, folder: Path) -> None:
    name = lake.product.name
    with spilled(lake.table, name) as one, spilled(lake.table, name) as another:
        assert [sum(map(len, rows.read(1, 0))) for rows in (one, another)] == [1_000, 1_000]
    assert not list(folder.iterdir())
