"""History first, while the sink commits and a producer writes: every event once and in order, whenever one begins."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Self

import pytest

from headrace.schemas.catalog import identifier_of, open_catalog
from headrace.streams.subscriber import Reading, Start, Subscriber
from tests.support.meshes import ORDERS, encoded, order, send
from tests.support.sinks import caught_up, eventually, registered_id, running
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyiceberg.table import Table

    from headrace.schemas.mesh import Mesh

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

MOMENTS = 50
AT_ONCE = 4
BURST = 50
SEED = 20
ALL = Reading(until_end=True)


class Producing:
    """A producer that writes orders with rising numbers until told to stop."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._product = mesh.product(ORDERS)
        self._schema_id = registered_id(mesh, self._product)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def burst(self) -> None:
        """Send some more, and wait until they are there."""
        numbers = range(self.sent, self.sent + BURST)
        bodies = [(f"o{n}", encoded(self._product.schema, self._schema_id, order(n))) for n in numbers]
        send(self._mesh, self._product.topic, bodies)
        self.sent += BURST

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.burst()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


class Seen:
    """What a subscriber was given: places and numbers by partition."""

    def __init__(self) -> None:
        self.offsets: dict[int, list[int]] = defaultdict(list)
        self.numbers: dict[int, list[int]] = defaultdict(list)
        self.from_history = 0

    def take(self, subscriber: Subscriber, count: int | None = None) -> int:
        """Take some events of a subscriber, or all; return how many there were."""
        taken = 0
        for event in islice(subscriber, count):
            assert subscriber.place is not None
            self.offsets[subscriber.place.partition].append(subscriber.place.offset)
            self.numbers[subscriber.place.partition].append(event["amount"])
            self.from_history += subscriber.place.from_history
            taken += 1
        return taken

    def all(self) -> Sequence[int]:
        """Return the numbers, sorted, after a look at the order and at what is missing or double."""
        for partition, offsets in self.offsets.items():
            # Nothing but events is in this topic, so that offsets have no gaps.
            assert offsets == list(range(len(offsets))), f"partition {partition}"
            assert self.numbers[partition] == sorted(self.numbers[partition])
        return sorted(number for some in self.numbers.values() for number in some)


def table_of(mesh: Mesh) -> Table:
    product = mesh.product(ORDERS)
    return open_catalog(mesh.environment, mesh.domain_of(product)).load_table(identifier_of(product))


def land(mesh: Mesh, producing: Producing) -> int:
    """Send and land one burst; return the snapshot's id."""
    producing.burst()
    assert caught_up(mesh).outcomes == {ORDERS: True}
    snapshot = table_of(mesh).current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id


def test_every_event_once_and_in_order_at_fifty_random_moments(mesh: Mesh) -> None:
    moments = random.Random(SEED)

    def begin(moment: int) -> int:
        """Read everything from a moment on; return how much of it came from history."""
        assert eventually(lambda: producing.sent >= moment)
        before, seen = producing.sent, Seen()
        with Subscriber(mesh, ORDERS, group=None, start=Start.HISTORY, reading=ALL) as subscriber:
            seen.take(subscriber)
        # All that was there when it began; of what was being sent just then, perhaps a part.
        assert set(seen.all()) >= set(range(before))
        return seen.from_history

    # Several at a time: each waits for the broker more than it computes.
    with running(mesh) as sink, Producing(mesh) as producing, ThreadPoolExecutor(AT_ONCE) as readers:
        assert eventually(lambda: sink.rows(ORDERS) > 0)
        begun: list[Future[int]] = []
        for _ in range(MOMENTS):
            moment = producing.sent + moments.randrange(BURST)
            begun.append(readers.submit(begin, moment))
            assert eventually(lambda moment=moment: producing.sent >= moment)  # type: ignore[misc]
            assert eventually(lambda: sum(not reader.done() for reader in begun) < AT_ONCE)
        from_history = [reader.result() for reader in begun]
    assert sink.outcomes == {ORDERS: True}
    assert all(from_history)


def test_a_group_that_stops_and_resumes_all_the_time_sees_each_event_once(mesh: Mesh, prefix: str) -> None:
    moments = random.Random(SEED)
    seen = Seen()
    with running(mesh) as sink, Producing(mesh) as producing:
        assert eventually(lambda: sink.rows(ORDERS) > 0)
        for _ in range(10):
            with Subscriber(mesh, ORDERS, group=prefix, start=Start.HISTORY, reading=ALL) as subscriber:
                seen.take(subscriber, moments.randrange(3 * BURST))
    with Subscriber(mesh, ORDERS, group=prefix, start=Start.HISTORY, reading=ALL) as subscriber:
        seen.take(subscriber)
    assert seen.all() == list(range(producing.sent))


def test_two_of_a_group_share_history_and_topic(mesh: Mesh, prefix: str) -> None:
    both = [Seen(), Seen()]
    with running(mesh) as sink, Producing(mesh) as producing:
        assert eventually(lambda: sink.rows(ORDERS) > 4 * BURST)

        def read(seen: Seen) -> None:
            with Subscriber(mesh, ORDERS, group=prefix, start=Start.HISTORY, reading=ALL) as subscriber:
                seen.take(subscriber)

        for _ in range(4):
            threads = [threading.Thread(target=read, args=[seen], daemon=True) for seen in both]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE_S)
            assert not any(thread.is_alive() for thread in threads)
    read(both[0])
    found = sorted(number for seen in both for some in seen.numbers.values() for number in some)
    assert found == list(range(producing.sent))


def test_after_a_rollback_none_comes_twice(mesh: Mesh, prefix: str) -> None:
    producing, resumed = Producing(mesh), Seen()
    heads = []
    for _ in range(3):
        heads.append(land(mesh, producing))
        with Subscriber(mesh, ORDERS, group=prefix, start=Start.HISTORY, reading=ALL) as subscriber:
            resumed.take(subscriber, BURST - 10)
    table_of(mesh).manage_snapshots().rollback_to_snapshot(heads[0]).commit()
    anew = Seen()
    with Subscriber(mesh, ORDERS, group=None, start=Start.HISTORY, reading=ALL) as subscriber:
        anew.take(subscriber)
    assert anew.all() == list(range(3 * BURST))
    assert anew.from_history == BURST
    with Subscriber(mesh, ORDERS, group=prefix, start=Start.HISTORY, reading=ALL) as subscriber:
        resumed.take(subscriber)
    assert resumed.all() == list(range(3 * BURST))


def test_a_rollback_under_a_running_subscriber_shows_none_twice(mesh: Mesh, prefix: str) -> None:
    producing, seen = Producing(mesh), Seen()
    first = land(mesh, producing)
    land(mesh, producing)
    with Subscriber(mesh, ORDERS, group=prefix, start=Start.HISTORY) as subscriber:
        seen.take(subscriber, BURST + 20)
        table_of(mesh).manage_snapshots().rollback_to_snapshot(first).commit()
        land(mesh, producing)
        seen.take(subscriber, 2 * BURST - 20)
    assert seen.all() == list(range(3 * BURST))
