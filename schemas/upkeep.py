"""How a product's table is kept quick and small, as values that a contract sets. Pure.

Each snapshot that a table has makes each commit slower (some 0.1 ms), because the metadata names them all: so few are
kept, and the older they are, the fewer.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EVERY_MOST", "Compaction", "Tier", "Upkeep"]

# The most snapshots that a tier keeps which keeps "every" one: a sink that commits ten times a second has no more.
EVERY_MOST = 30

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3_600.0, 86_400.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Tier:
    """Which snapshots of some age are kept.

    Attributes:
        for_s: snapshots that are no older than this many seconds.
        every_s: one of them in each span of so many seconds; 0: every one, at most the newest ``EVERY_MOST``.
    """

    for_s: float
    every_s: float = 0.0

    @property
    def most(self) -> int:
        """How many snapshots it keeps at most."""
        # A span of time touches one more slot than it is slots long.
        return int(self.for_s // self.every_s) + 1 if self.every_s else EVERY_MOST


@dataclass(frozen=True, slots=True)
class Compaction:
    """When small files are put together.

    Attributes:
        target_bytes: how large files become.
        small_bytes: files below this are small.
        min_files: it takes so many small files of one partition.
    """

    target_bytes: int = 128 * _MIB
    small_bytes: int = 32 * _MIB
    min_files: int = 8


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What a table's upkeep does.

    Attributes:
        tiers: which snapshots are kept, from the newest to the oldest; empty: all of them.
        compaction: when small files are put together; None: never.
        orphan_after_s: how old a file that no snapshot names must be before it is swept, in seconds; None: none is.
    """

    tiers: tuple[Tier, ...] = (
        Tier(_MINUTE_S),
        Tier(_HOUR_S, 5 * _MINUTE_S),
        Tier(_DAY_S, _HOUR_S),
        Tier(7 * _DAY_S, _DAY_S),
    )
    compaction: Compaction | None = Compaction()
    orphan_after_s: float | None = 3 * _DAY_S
