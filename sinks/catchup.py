"""When a sink has caught up: what was in the topic at the start is in the table. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.streams.admin import Watermarks
    from headrace.streams.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Targets:
    """The bounds of each partition at the start, as a read_committed reader sees them."""

    marks: Mapping[int, Watermarks]

    def held_by(self, ledger: Ledger | None) -> bool:
        """Tell whether the table with this ledger holds all of it; None: a table that holds nothing."""
        return all((ledger.next(p) if ledger else marks.low) >= marks.end for p, marks in self.marks.items())

    def read(self, positions: Mapping[int, int]) -> bool:
        """Tell whether every partition of a worker has been read up to its target."""
        return bool(positions) and all(
            position >= self.marks[p].end for p, position in positions.items() if p in self.marks
        )
