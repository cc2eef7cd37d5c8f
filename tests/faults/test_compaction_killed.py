"""A process that is killed before each file of a compaction: the table stays whole, and the next one completes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from itertools import count
from typing import TYPE_CHECKING, Any

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO

from headrace.schemas.upkeep import Compaction
from tests.support.compacting import compact_once
from tests.support.forked import preload
from tests.support.lake import Lake, product_of
from tests.support.waiting import PATIENCE_S
from tests.unit.test_commit import SCHEMA, events, ids

if TYPE_CHECKING:
    from pathlib import Path

    from pyiceberg.io.pyarrow import PyArrowFile

_CONTEXT = multiprocessing.get_context("forkserver")
preload(__name__)
# The data file, a manifest each of what is added, deleted and kept, the list of them, the table's metadata.
FEWEST_FILES = 5


class MortalIO(PyArrowFileIO):
    """A storage whose process is killed before it makes its last file."""

    last: int

    def new_output(self, location: str) -> PyArrowFile:
        """Make a file, or die."""
        self.last -= 1
        if not self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().new_output(location)


class MortalCatalog(SqlCatalog):
    """A catalog whose tables lie on such a storage; the property ``last`` counts its files."""

    def _load_file_io(self, properties: Any = None, location: str | None = None) -> MortalIO:
        if not hasattr(self, "_io"):
            self._io = MortalIO({**self.properties, **(properties or {})})
            self._io.last = int(self.properties["last"])
        return self._io


def compact(properties: dict[str, str]) -> None:
    """Compact in this process."""
    compact_once(MortalCatalog("shop", **properties), product_of(SCHEMA), Compaction(min_files=2))


def test_a_process_that_is_killed_at_any_step_leaves_a_whole_table(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA)
    for number in range(4):
        lake.add(events(number))
    properties = {name: lake.catalog.properties[name] for name in ("uri", "warehouse")}
    rows, killed = 4, 0
    for last in count(1):
        child = _CONTEXT.Process(target=compact, args=({**properties, "last": str(last)},))
        child.start()
        child.join(PATIENCE_S)
        assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
        assert ids(lake) == list(range(rows))
        if child.exitcode == 0:
            break
        killed += 1
        # Landings go on between.
        lake.add(events(rows))
        rows += 1
    assert killed >= FEWEST_FILES
    assert len(list(lake.reload().scan().plan_files())) == 1
    lake.add(events(rows))
    assert ids(lake) == list(range(rows + 1))
