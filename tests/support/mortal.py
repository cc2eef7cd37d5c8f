"""A catalog in whose process, at one of its changes, something happens: the process is killed, or the reply is lost."""

from __future__ import annotations

import os
import signal
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from pyiceberg.catalog.sql import SqlCatalog
from requests.exceptions import ReadTimeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyiceberg.table import Table

Answer = TypeVar("Answer")

BEFORE, AFTER, LOST = "killed before", "killed after", "reply lost"
# Of all catalogs of a process: which change it is.
_CHANGES = count(1)


class MortalCatalog(SqlCatalog):
    """A SQLite catalog whose properties say at which of the process's changes, and what, happens."""

    def __init__(self, name: str, **properties: Any) -> None:
        super().__init__(name, **properties)
        self._at = int(properties.get("mortal.at", "0"))
        self._fate = properties.get("mortal.fate", AFTER)

    def create_namespace(self, *given: Any, **more: Any) -> None:
        """Make a namespace, or meet the fate."""
        self._meet(lambda: super(MortalCatalog, self).create_namespace(*given, **more))

    def create_table(self, *given: Any, **more: Any) -> Table:
        """Make a table, or meet the fate."""
        return self._meet(lambda: super(MortalCatalog, self).create_table(*given, **more))

    def commit_table(self, *given: Any, **more: Any) -> Any:
        """Commit, or meet the fate."""
        return self._meet(lambda: super(MortalCatalog, self).commit_table(*given, **more))

    def _meet(self, change: Callable[[], Answer]) -> Answer:
        now = next(_CHANGES) == self._at
        if now and self._fate == BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return change()
        finally:
            # Whatever the answer would have been.
            if now and self._fate == AFTER:
                os.kill(os.getpid(), signal.SIGKILL)
            if now and self._fate == LOST:
                raise ReadTimeout


def make_mortal(root: Path, at: int, fate: str) -> None:
    """Write into a test's mesh that something happens at a change; 0: nothing does."""
    path = root / "mesh.yaml"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "mortal" not in line]
    place = next(number for number, line in enumerate(lines) if line.strip() == "catalog:") + 1
    indent = " " * (len(lines[place]) - len(lines[place].lstrip()))
    own = [
        f"{indent}py-catalog-impl: {__name__}.MortalCatalog",
        f"{indent}mortal.at: {at}",
        f"{indent}mortal.fate: {fate}",
    ]
    kept = [line for line in lines if line.strip() != "type: sql" and "py-catalog-impl" not in line]
    path.write_text("\n".join([*kept[:place], *own, *kept[place:]]) + "\n", encoding="utf-8")
