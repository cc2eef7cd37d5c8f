"""Which snapshots of a table expire: few are kept, and the older they are, the fewer. Pure.

What is never removed: a branch's head and what a tag names; what stands on another branch than `main`; the newest few;
the newest of each slot of each tier; for some days what waits to be published. And behind each snapshot that is kept
and carries no ledger (another engine's), all up to the one whose ledger counts for it: rolling back to it must not fall
off the history.

The newest of a slot stays the newest for as long as any of the slot's snapshots would be kept, so nothing is removed
that a later answer would have wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from headrace.schemas.upkeep import EVERY_MOST

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from headrace.schemas.upkeep import Tier

__all__ = ["LEAST_KEPT", "MOST_AT_ONCE", "History", "Rank", "Shot", "expired_of"]

# So many of the newest are kept however old they are: a person may go back behind a mistake in a table that rests.
LEAST_KEPT = 5
# The most that one commit removes. A commit adds one snapshot, so whatever was left over is gone after a few.
MOST_AT_ONCE = 50
# What another engine has staged and nobody has published: Iceberg's own age of snapshots that expire.
STAGED_S = 5 * 86_400


class Rank(IntEnum):
    """How well a snapshot stands for others of its slot."""

    HALF = 0
    FOREIGN = 1
    OWN = 2


@dataclass(frozen=True, slots=True)
class Shot:
    """What a snapshot is to its expiry.

    Attributes:
        snapshot_id: its id.
        parent_id: its parent's id; None: it has none, or its parent has been expired.
        sequence: its sequence number: higher than its ancestors'.
        at_ms: when it was made, milliseconds since 1970 UTC.
        rank: `OWN`: it carries a ledger. `HALF`: it was made on another branch, and may hold half a table.
        ends: the walk to the ledger ends at it: it carries one, or is where the table begins.
        staged: it waits to be audited and published (``wap.id``): nothing else holds its rows.
    """

    snapshot_id: int
    parent_id: int | None
    sequence: int
    at_ms: int
    rank: Rank = Rank.OWN
    ends: bool = True
    staged: bool = False

    @property
    def age_key(self) -> tuple[int, int]:
        """Sorts snapshots from the oldest to the newest; a clock that was set back does not change their order."""
        return self.sequence, self.at_ms


@dataclass(frozen=True, slots=True)
class History:
    """A table's snapshots, and what names them.

    Attributes:
        shots: all of them.
        branches: the heads of the branches beside `main`.
        named: what else must stay: the head of `main`, what tags name.
        mains: what has once been the head of `main`.
    """

    shots: Sequence[Shot]
    branches: Collection[int]
    named: Collection[int]
    mains: Collection[int]


def expired_of(history: History, tiers: Sequence[Tier], now_ms: int) -> tuple[int, ...]:
    """Return the ids of the snapshots that a commit is to remove, at most ``MOST_AT_ONCE``; no tiers: none.

    Args:
        history: the table's snapshots.
        tiers: which of them are kept.
        now_ms: the time, milliseconds since 1970 UTC.
    """
    if not tiers:
        return ()
    by_id = {shot.snapshot_id: shot for shot in history.shots}
    newest_first = sorted(history.shots, key=lambda shot: shot.age_key, reverse=True)
    kept = {*history.named, *history.branches, *_on_branches(history, by_id)}
    kept.update(shot.snapshot_id for shot in newest_first[:LEAST_KEPT])
    kept.update(shot.snapshot_id for shot in newest_first if shot.staged and now_ms - shot.at_ms <= STAGED_S * 1_000)
    for tier in tiers:
        kept.update(_of_tier(tier, newest_first, now_ms))
    kept |= _behind(kept, by_id)
    # The newest first: whatever is left for the next commit still has all its ancestors.
    return tuple(shot.snapshot_id for shot in newest_first if shot.snapshot_id not in kept)[:MOST_AT_ONCE]


def _of_tier(tier: Tier, newest_first: Iterable[Shot], now_ms: int) -> Iterator[int]:
    young = [shot for shot in newest_first if now_ms - shot.at_ms <= tier.for_s * 1_000]
    if not tier.every_s:
        yield from (shot.snapshot_id for shot in young[:EVERY_MOST])
        return
    best: dict[int, Shot] = {}
    for shot in young:
        slot = shot.at_ms // round(tier.every_s * 1_000)
        # Of equals the first one counts: it is the newest.
        if slot not in best or shot.rank > best[slot].rank:
            best[slot] = shot
    yield from (shot.snapshot_id for shot in best.values())


def _on_branches(history: History, by_id: Mapping[int, Shot]) -> Iterator[int]:
    """Yield what stands on other branches, behind the place where they left `main`."""
    for head in history.branches:
        shot = by_id.get(head)
        while shot is not None and shot.snapshot_id not in history.mains:
            yield shot.snapshot_id
            shot = by_id.get(shot.parent_id) if shot.parent_id is not None else None


def _behind(kept: Iterable[int], by_id: Mapping[int, Shot]) -> set[int]:
    """Return what the walks from snapshots to their ledgers pass; nothing of a walk that falls off anyway."""
    # Where a walk has passed, whether it got to an end: the next one need not go that way again.
    ends: dict[int, bool] = {}
    for snapshot_id in kept:
        passed: list[int] = []
        found, shot = False, by_id.get(snapshot_id)
        while shot is not None:
            if shot.snapshot_id in ends:
                found = ends[shot.snapshot_id]
                break
            passed.append(shot.snapshot_id)
            if shot.ends:
                found = True
                break
            shot = by_id.get(shot.parent_id) if shot.parent_id is not None else None
        ends.update(dict.fromkeys(passed, found))
    return {snapshot_id for snapshot_id, found in ends.items() if found}
