"""A worker's watermark, and the share of memory that a product takes: both pure."""

from __future__ import annotations

import pytest

from headrace.sinks.share import Share
from headrace.sinks.watermark import Watermark
from headrace.streams.ledger import Ledger, Range

MIB = 1 << 20
NOW_S = 1_700_000_000.0


def ledger(**positions: int) -> Ledger:
    """Return a ledger with positions by partition: p0=…, p1=…."""
    places = {int(name[1:]): position for name, position in positions.items()}
    begun = Ledger.begin("t", dict.fromkeys(places, 0))
    return begun.advanced({partition: Range(0, end, end - 1) for partition, end in places.items() if end})


def test_it_is_the_oldest_of_the_partitions_newest_events() -> None:
    mark = Watermark()
    mark.landed({0: 50.0, 1: 70.0})
    assert mark.of([0, 1]) == 50.0
    mark.landed({0: 90.0})
    assert mark.of([0, 1]) == 70.0
    assert mark.of([1]) == 70.0


def test_an_event_of_an_older_clock_does_not_take_it_back() -> None:
    mark = Watermark()
    mark.landed({0: 50.0})
    mark.landed({0: 20.0})
    assert mark.of([0]) == 50.0


def test_nothing_is_known_before_each_partition_has_a_mark() -> None:
    mark = Watermark()
    assert mark.of([]) is None
    assert mark.of([0]) is None
    mark.landed({0: 50.0})
    assert mark.of([0, 1]) is None


def test_a_partition_in_which_nothing_happens_holds_nothing_back() -> None:
    mark = Watermark()
    mark.landed({0: 50.0, 1: 10.0})
    mark.ended({1: 4})
    mark.looked({0: 9, 1: 4}, ledger(p0=9, p1=4), NOW_S)
    assert mark.of([0, 1]) == 50.0, "the other one's end is not known"
    mark.ended({0: 9})
    mark.looked({0: 9, 1: 4}, ledger(p0=9, p1=4), NOW_S + 1)
    assert mark.of([0, 1]) == NOW_S + 1


def test_an_empty_partition_holds_nothing_back() -> None:
    mark = Watermark()
    mark.ended({0: 0})
    mark.looked({0: 0}, ledger(p0=0), NOW_S)
    assert mark.of([0]) == NOW_S


@pytest.mark.parametrize(
    ("position", "committed", "end"),
    [(9, 4, 9), (9, 9, 7), (5, 4, 4), (9, 9, None)],
    ids=["read and not committed", "more has come since", "being read", "end not seen"],
)
def test_a_partition_with_something_open_stays_where_its_commits_are(
    position: int, committed: int, end: int | None
) -> None:
    mark = Watermark()
    mark.landed({0: 50.0})
    mark.ended({} if end is None else {0: end})
    mark.looked({0: position}, ledger(p0=committed), NOW_S)
    assert mark.of([0]) == 50.0


def test_a_partition_that_went_and_came_back_begins_anew() -> None:
    mark = Watermark()
    mark.landed({0: 50.0, 1: 60.0})
    mark.ended({0: 4})
    mark.revoked([0])
    assert mark.of([1]) == 60.0
    assert mark.of([0, 1]) is None
    mark.looked({0: 4, 1: 5}, ledger(p0=4, p1=5), NOW_S)
    assert mark.of([0, 1]) is None


@pytest.mark.parametrize("products", [1, 2, 4])
def test_few_products_take_what_one_takes(products: int) -> None:
    assert Share.of(products) == Share() == Share(128 * MIB, 64 * MIB)


@pytest.mark.parametrize("products", [5, 16, 40, 64])
def test_many_products_share_what_four_take(products: int) -> None:
    share = Share.of(products)
    assert share.batch_bytes * products <= 4 * 128 * MIB
    assert share.fetched_bytes * products <= 4 * 64 * MIB


def test_a_share_has_a_floor() -> None:
    assert Share.of(1_000) == Share.of(64) == Share(8 * MIB, 4 * MIB)
