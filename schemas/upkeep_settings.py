"""What a contract sets of its table's upkeep: ``upkeep.snapshots``, ``upkeep.compaction``, ``upkeep.orphans``. Pure.

::

    upkeep.snapshots     [1min, 5min/1h, 1h/1d, 1d/7d] (default): every snapshot for a minute, then one in
                         five minutes for an hour …; off: none expires
    upkeep.compaction    on (default), off, or {targetBytes: 134217728, smallBytes: 33554432, minFiles: 8}
    upkeep.orphans       3d (default): how old a file that no snapshot names must be before it is swept; off: none is
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from headrace.schemas.durations import seconds_of
from headrace.schemas.upkeep import Compaction, Tier, Upkeep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.documents import DocumentFaults, Key

__all__ = ["UPKEEP_SETTINGS", "upkeep_of"]

SNAPSHOTS = "upkeep.snapshots"
COMPACTION = "upkeep.compaction"
ORPHANS = "upkeep.orphans"
UPKEEP_SETTINGS = (SNAPSHOTS, COMPACTION, ORPHANS)

# Each snapshot costs every commit some 0.1 ms: so many, a third of the SLA of a table that is committed to each second.
MAX_SNAPSHOTS = 300
# Iceberg's own procedure (remove_orphan_files) refuses less than a day: what is being written has no snapshot yet.
MIN_ORPHAN_AGE_S = 86_400.0
_DEFAULT = "value: [1min, 5min/1h, 1h/1d, 1d/7d]"
_MIB, _GIB = 1 << 20, 1 << 30
# The names of a compaction's settings: attribute, least and most.
_SIZES = {
    "targetBytes": ("target_bytes", _MIB, 2 * _GIB),
    "smallBytes": ("small_bytes", 1, 2 * _GIB),
    "minFiles": ("min_files", 2, 1_000),
}


def upkeep_of(custom: Mapping[str, tuple[Any, tuple[Key, ...]]], faults: DocumentFaults) -> Upkeep:
    """Return a contract's upkeep; each wrong setting is a fault, and its default is returned in its place."""
    upkeep = Upkeep()
    if SNAPSHOTS in custom:
        upkeep = replace(upkeep, tiers=_tiers(*custom[SNAPSHOTS], faults))
    if COMPACTION in custom:
        upkeep = replace(upkeep, compaction=_compaction(*custom[COMPACTION], faults))
    if ORPHANS in custom:
        upkeep = replace(upkeep, orphan_after_s=_orphans(*custom[ORPHANS], faults))
    return upkeep


def _is_off(value: Any) -> bool:
    return value is False or value == "off"


def _tiers(value: Any, place: tuple[Key, ...], faults: DocumentFaults) -> tuple[Tier, ...]:
    if _is_off(value):
        return ()
    if not isinstance(value, list) or not value:
        faults.add(place, f"{SNAPSHOTS} is a list of tiers, or off", f"such as {_DEFAULT}")
        return Upkeep().tiers
    tiers = []
    for index, text in enumerate(value):
        tier = _tier(text)
        if tier is None:
            hint = "such as 1min (every snapshot for a minute) or 1h/1d (one an hour for a day)"
            faults.add((*place, index), "this is no tier of snapshots", hint)
            return Upkeep().tiers
        tiers.append(tier)
    for index, (newer, older) in enumerate(pairwise(tiers), 1):
        if older.for_s <= newer.for_s or older.every_s <= newer.every_s:
            what = "each tier keeps snapshots for longer than the one before it, and fewer of them"
            faults.add((*place, index), what, f"such as {_DEFAULT}")
            return Upkeep().tiers
    most = sum(tier.most for tier in tiers)
    if most > MAX_SNAPSHOTS:
        what = f"these tiers keep {most:,} snapshots, {MAX_SNAPSHOTS} at most: each makes every commit slower"
        faults.add(place, what, f"keep fewer of the older ones, such as {_DEFAULT}")
        return Upkeep().tiers
    return tuple(tiers)


def _tier(text: Any) -> Tier | None:
    if not isinstance(text, str):
        return None
    every, slash, span = text.partition("/")
    if not slash:
        for_s = seconds_of(text)
        return None if for_s is None else Tier(for_s)
    every_s, for_s = seconds_of(every), seconds_of(span)
    return None if every_s is None or for_s is None or every_s > for_s else Tier(for_s, every_s)


def _compaction(value: Any, place: tuple[Key, ...], faults: DocumentFaults) -> Compaction | None:
    if _is_off(value):
        return None
    if value is True or value == "on":
        return Compaction()
    if not isinstance(value, dict):
        faults.add(place, f"{COMPACTION} is on, off or a map", "such as value: {targetBytes: 134217728, minFiles: 8}")
        return Compaction()
    found: dict[str, int] = {}
    for name, size in value.items():
        if name not in _SIZES:
            faults.add((*place, name), f"{COMPACTION} has no such setting", f"choose {', '.join(_SIZES)}")
            return Compaction()
        attribute, least, most = _SIZES[name]
        if isinstance(size, bool) or not isinstance(size, int) or not least <= size <= most:
            faults.add(
                (*place, name), f"{name} is a whole number from {least:,} to {most:,}", "take it out, or mend it"
            )
            return Compaction()
        found[attribute] = size
    compaction = replace(Compaction(), **found)
    if compaction.small_bytes >= compaction.target_bytes:
        what = "files below smallBytes become files of targetBytes, so it is the smaller of the two"
        faults.add(place, what, f"such as value: {{targetBytes: {4 * compaction.small_bytes}}}")
        return Compaction()
    return compaction


def _orphans(value: Any, place: tuple[Key, ...], faults: DocumentFaults) -> float | None:
    if _is_off(value):
        return None
    seconds = seconds_of(value) if isinstance(value, str) else None
    if seconds is not None and seconds >= MIN_ORPHAN_AGE_S:
        return seconds
    what = f"{ORPHANS} is a time of one day at least, or off: younger files may belong to a commit under way"
    faults.add(place, what, "such as value: 3d")
    return Upkeep().orphan_after_s
