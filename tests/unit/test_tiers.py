"""Which snapshots expire: what must stay stays, few stay, and what is gone is never wanted again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.upkeep import EVERY_MOST, Tier, Upkeep
from headrace.sinks.upkeep.tiers import LEAST_KEPT, MOST_AT_ONCE, History, Rank, Shot, expired_of

TIERS = Upkeep().tiers
MOST = sum(tier.most for tier in TIERS)
# A Monday at noon, ms.
NOON = 1_795_435_200_000


def shots(*ages_s: float, now_ms: int = NOON) -> list[Shot]:
    """Return snapshots, each the parent of the next one, that are that old; the oldest first."""
    made = [
        Shot(n, n - 1 or None, n, now_ms - round(age_s * 1_000))
        for n, age_s in enumerate(sorted(ages_s, reverse=True), 1)
    ]
    assert made
    return made


def line(found: list[Shot]) -> History:
    return History(found, (), {found[-1].snapshot_id}, {shot.snapshot_id for shot in found})


def kept(history: History, now_ms: int = NOON) -> list[int]:
    """Return what is left when nothing more expires."""
    while expired := expired_of(history, TIERS, now_ms):
        history = replace(history, shots=[shot for shot in history.shots if shot.snapshot_id not in expired])
    return [shot.snapshot_id for shot in history.shots]


def test_without_tiers_nothing_expires() -> None:
    assert expired_of(line(shots(*range(0, 10**7, 10**5))), (), NOON) == ()


def test_every_snapshot_of_the_last_minute_is_kept() -> None:
    assert kept(line(shots(*range(0, 60, 3)))) == list(range(1, 21))


def test_no_more_than_some_of_the_last_minute_are_kept() -> None:
    found = kept(line(shots(*(n / 10 for n in range(300)))))
    assert found[-EVERY_MOST:] == list(range(301 - EVERY_MOST, 301))
    # One for the minute, whose newest it is in any case.
    assert len(found) == EVERY_MOST


def test_older_ones_are_thinned() -> None:
    """A commit each ten seconds for an hour and a half, each ten minutes for two days before."""
    history = line(shots(*range(0, 5_400, 10), *range(5_400, 2 * 86_400, 600)))
    left = set(kept(history))
    ages_s = sorted((NOON - shot.at_ms) // 1_000 for shot in history.shots if shot.snapshot_id in left)
    assert ages_s[:7] == [0, 10, 20, 30, 40, 50, 60]
    assert len([age for age in ages_s if 60 < age <= 3_600]) == 11
    assert len([age for age in ages_s if 3_600 < age <= 86_400]) == 23
    # The last one of the day before yesterday.
    assert ages_s[-1] == 36 * 3_600 + 600
    assert ages_s[-2] <= 86_400


def test_a_table_at_rest_keeps_the_newest() -> None:
    year_s = 365 * 86_400
    assert kept(line(shots(*(n * year_s for n in range(20))))) == list(range(21 - LEAST_KEPT, 21))


def test_a_commit_removes_a_bounded_number_and_the_newest_first() -> None:
    """So whatever is left for the next commit still has all its ancestors."""
    history = line(shots(*(40 * 86_400 + n for n in range(200))))
    expired = expired_of(history, TIERS, NOON)
    newest_of_those = 200 - LEAST_KEPT
    assert expired == tuple(range(newest_of_those, newest_of_those - MOST_AT_ONCE, -1))


def test_branches_and_tags_keep_what_they_name() -> None:
    old = shots(*(30 * 86_400 + n for n in range(20)))
    # Leaves main at 3, and has been its head never.
    branch = [replace(old[0], snapshot_id=n, parent_id=p, sequence=n) for n, p in ((101, 3), (102, 101), (103, 102))]
    history = History([*old, *branch], {103}, {20, 7}, set(range(1, 21)))
    newest = [*range(19, 21), 101, 102, 103]
    assert kept(history) == [7, *newest]


def foreign(shot: Shot) -> Shot:
    return replace(shot, rank=Rank.FOREIGN, ends=False)


def test_what_carries_no_ledger_keeps_the_way_to_one() -> None:
    found = shots(*(30 * 86_400 + n for n in range(20)))
    changed = [foreign(shot) if shot.snapshot_id in {8, 9, 10} else shot for shot in found]
    history = History(changed, (), {20, 10}, set(range(1, 21)))
    assert kept(history) == [7, 8, 9, 10, *range(21 - LEAST_KEPT, 21)]


def test_where_the_way_is_lost_nothing_more_is_kept_for_it() -> None:
    found = [foreign(shot) for shot in shots(*(30 * 86_400 + n for n in range(20)))]
    history = History(found, (), {20, 10}, set(range(1, 21)))
    assert kept(history) == [10, *range(21 - LEAST_KEPT, 21)]


@pytest.mark.parametrize(("worse", "better"), [(Rank.FOREIGN, Rank.OWN), (Rank.HALF, Rank.FOREIGN)])
def test_a_better_snapshot_stands_for_its_slot(worse: Rank, better: Rank) -> None:
    # Two of one minute, half an hour ago; the newer one is the worse one.
    slot = shots(1_790, 1_780, *range(LEAST_KEPT))
    changed = [replace(slot[0], rank=better), replace(slot[1], rank=worse), *slot[2:]]
    assert kept(line(changed)) == [1, *range(3, len(slot) + 1)]


@dataclass
class Simulated:
    """A table as commits with expiry leave it; it remembers what was ever in it."""

    now_ms: int = NOON
    next_id: int = 1
    head: int | None = None
    shots: dict[int, Shot] = field(default_factory=dict)
    ever: dict[int, Shot] = field(default_factory=dict)
    branches: dict[str, int] = field(default_factory=dict)
    tags: set[int] = field(default_factory=set)
    mains: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)

    @property
    def history(self) -> History:
        named = {*self.tags, *([self.head] if self.head else [])}
        return History(list(self.shots.values()), set(self.branches.values()), named, self.mains & self.shots.keys())

    def commit(self, *, own: bool, branch: str | None = None) -> None:
        expired = expired_of(self.history, TIERS, self.now_ms) if own and branch is None else ()
        assert len(expired) <= MOST_AT_ONCE
        assert not {self.head, *self.branches.values()} & set(expired)
        assert not self.tags & set(expired)
        parent = self.head if branch is None else self.branches[branch]
        rank = Rank.HALF if branch else Rank.OWN if own else Rank.FOREIGN
        # Of the very first one the walk ends in any case.
        made = Shot(self.next_id, parent, self.next_id, self.now_ms, rank, ends=own or self.next_id == 1)
        self.shots[made.snapshot_id] = self.ever[made.snapshot_id] = made
        if branch is None:
            self.head = made.snapshot_id
            self.mains.add(made.snapshot_id)
        else:
            self.branches[branch] = made.snapshot_id
        self.next_id += 1
        self.remove(expired)

    def remove(self, expired: tuple[int, ...]) -> None:
        """Do what pyiceberg does: a child of what is gone has no parent."""
        self.gone |= set(expired)
        self.shots = {
            key: replace(shot, parent_id=None) if shot.parent_id in expired else shot
            for key, shot in self.shots.items()
            if key not in expired
        }

    def ledger_of(self, snapshot_id: int, among: dict[int, Shot]) -> int | None:
        """Return the snapshot at which the walk from another one ends."""
        shot = among.get(snapshot_id)
        while shot is not None and not shot.ends:
            shot = among.get(shot.parent_id) if shot.parent_id is not None else None
        return shot.snapshot_id if shot else None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["own", "own", "own", "own", "foreign", "branch", "on branch", "tag", "rollback"]),
        st.sampled_from([0, 1, 900, 5_000, 61_000, 400_000, 4_000_000, 90_000_000]),
        st.integers(0, 10**6),
    ),
    min_size=1,
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_whatever_happens_each_kept_snapshot_finds_its_ledger(steps: list[tuple[str, int, int]]) -> None:
    table = Simulated()
    table.commit(own=True)
    for kind, wait_ms, chosen in steps:
        table.now_ms += wait_ms
        there = sorted(table.shots)
        one = there[chosen % len(there)]
        match kind:
            case "own" | "foreign":
                table.commit(own=kind == "own")
            case "branch":
                table.branches[f"b{len(table.branches)}"] = one
            case "on branch" if table.branches:
                table.commit(own=bool(chosen % 2), branch=f"b{chosen % len(table.branches)}")
            case "tag":
                table.tags.add(one)
            case "rollback":
                table.head = one
            case _:
                pass
        for snapshot_id in table.shots:
            assert table.ledger_of(snapshot_id, table.shots) == table.ledger_of(snapshot_id, table.ever)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([10, 900, 5_000, 61_000, 400_000, 4_000_000, 90_000_000]), min_size=1, max_size=300))
def test_few_are_kept_and_none_is_gone_that_would_be_wanted_later(waits_ms: list[int]) -> None:
    """At every later time, the tiers over all that there ever was want nothing that has been removed."""
    table = Simulated()
    for wait_ms in waits_ms:
        table.now_ms += wait_ms
        table.commit(own=True)
        assert len(table.shots) <= MOST + LEAST_KEPT + 1
    every = replace(table.history, shots=list(table.ever.values()))
    for later_ms in (0, 30_000, 1_000_000, 40_000_000, 200_000_000):
        wanted = set(kept(every, table.now_ms + later_ms))
        assert not wanted & table.gone


def test_the_tiers_can_be_counted() -> None:
    assert [tier.most for tier in TIERS] == [EVERY_MOST, 13, 25, 8]
    assert Tier(60.0).most == EVERY_MOST
