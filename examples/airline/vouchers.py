"""Vouchers for delayed flights: a domain that subscribes to two others, and publishes a product of its own.

A booking of a flight that left 60 or more minutes late gives a voucher (`marketing.delay_vouchers`). Two Faust agents
take in flights and bookings, in whatever order they arrive. Run it from the clone, while the mesh is up::

    python examples/airline/vouchers.py                    # goes on until Ctrl-C
    python examples/airline/vouchers.py --until-caught-up  # ends when all that is there now has its vouchers

What the join knows is in memory alone. It is made anew from the products themselves whenever this worker is given the
partitions: at its start, when the worker that had them has died, and when one that only stands by comes or goes. Then
it publishes what is due, and `OncePublisher` leaves out every voucher that was published before. So there is no state
that could be lost or contradict the products, wherever the process is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.producers.once import OncePublisher
from headrace.schemas.errors import HeadraceError
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.output import show_error
from headrace.streams.faust_codec import faust_app, faust_topic
from headrace.streams.subscriber import Reading, Start, Subscriber

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from faust.types import TP, StreamT

    from headrace.schemas.mesh import Mesh
    from headrace.streams.subscriber import Poison

FLIGHTS, BOOKINGS, VOUCHERS = "operations.flights", "loyalty.bookings", "marketing.delay_vouchers"
LATE_MINUTES = 60
# US dollars for each full hour of delay, up to three.
HOURLY = {"BASIC": 25, "SILVER": 50, "GOLD": 75, "PLATINUM": 100}
MAX_HOURS = 3
# Any UUID will do that stays the same.
NAMESPACE = uuid.UUID("7d3f5c1e-9a64-4c52-8f0b-2f6a0d1c9b58")
# A transaction this large takes a tenth of a second.
PUBLISH_EVENTS = 10_000
STOP_S = 10.0

LOGGER = logging.getLogger("vouchers")

Event = dict[str, Any]


def voucher(flight_id: str, minutes_late: int, booking_id: str, tier: str) -> Event:
    """Return the voucher of a booking: the same one for the same flight and booking, however often it is made."""
    return {
        "voucher_id": str(uuid.uuid5(NAMESPACE, f"{flight_id}/{booking_id}")),
        "booking_id": booking_id,
        "flight_id": flight_id,
        "minutes_late": minutes_late,
        "tier": tier,
        "amount": Decimal(HOURLY[tier] * min(minutes_late // 60, MAX_HOURS)).quantize(Decimal("0.01")),
    }


@dataclass
class Join:
    """Flights and bookings, met in any order. Events may come again. Holds nothing personal.

    Attributes:
        late: minutes by flight, of those flights that were late.
        booked: booking and tier, by flight.
    """

    late: dict[str, int] = field(default_factory=dict)
    booked: dict[str, dict[str, str]] = field(default_factory=dict)

    def flight(self, event: Mapping[str, Any]) -> list[Event]:
        """Take in a flight and return the vouchers that are due now."""
        flight_id, minutes = event["flight_id"], event["dep_delay"]
        if minutes is None or minutes < LATE_MINUTES:  # None: cancelled
            return []
        self.late[flight_id] = minutes
        return [voucher(flight_id, minutes, *booking) for booking in self.booked.get(flight_id, {}).items()]

    def booking(self, event: Mapping[str, Any]) -> list[Event]:
        """Take in a booking and return the vouchers that are due now."""
        flight_id, booking_id, tier = event["flight_id"], event["booking_id"], event["tier"]
        self.booked.setdefault(flight_id, {})[booking_id] = tier
        minutes = self.late.get(flight_id)
        return [] if minutes is None else [voucher(flight_id, minutes, booking_id, tier)]


class Desk:
    """Hands vouchers out: from the products when it is opened, then from one event after the other."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._join = Join()
        self._publisher: OncePublisher | None = None
        self._ready = asyncio.Event()
        self._closings = 0
        # Agents run side by side; a publisher is for one at a time.
        self._turn = asyncio.Lock()

    async def open(self) -> int:
        """Learn what the products hold, publish what is due, and return how many vouchers that was."""
        before = self._closings
        async with self._turn:
            published = await asyncio.to_thread(self._learn)
        if before == self._closings:
            self._ready.set()
        return published

    async def take(self, kind: str, event: Event) -> None:
        """Take in one event and publish what is due, before the event counts as handled."""
        await self._ready.wait()
        async with self._turn:
            due = self._join.flight(event) if kind == FLIGHTS else self._join.booking(event)
            if due and self._publisher is not None:
                await asyncio.to_thread(self._publisher.publish, due)

    def close(self) -> None:
        """Take nothing in until it is opened again: another worker may have had the partitions."""
        self.break_off()
        self._ready.clear()

    def break_off(self) -> None:
        """Let an `open` that is under way end soon."""
        self._closings += 1

    def _learn(self) -> int:
        # The publisher first: from now on whoever had the partitions before cannot publish any more.
        self._publisher = OncePublisher(self._mesh, VOUCHERS, identity="airline-vouchers", id_field="voucher_id")
        self._join = Join()
        due, begun = self._due(), self._closings
        published = 0
        while begun == self._closings and (some := list(islice(due, PUBLISH_EVENTS))):
            published += self._publisher.publish(some)
        return published

    def _due(self) -> Iterator[Event]:
        """Yield every voucher that is due by what is in the products now, tables first."""
        sides: tuple[tuple[str, tuple[str, ...], Callable[[Mapping[str, Any]], list[Event]]], ...] = (
            (FLIGHTS, ("flight_id", "dep_delay"), self._join.flight),
            (BOOKINGS, ("flight_id", "booking_id", "tier"), self._join.booking),
        )
        for product, columns, take in sides:
            reading = Reading(until_end=True, on_poison=_passing_over(product))
            events: Subscriber[Event] = Subscriber(
                self._mesh, product, group=None, start=Start.HISTORY, reading=reading
            )
            with events:
                for batch in events.batches():
                    for event in batch.select(list(columns)).to_pylist():
                        yield from take(event)


def _passing_over(product: str) -> Callable[[Poison], None]:
    """Return what logs a message that is no event, as `faust_topic` does for agents: it must not stop the vouchers."""

    def log(poison: Poison) -> None:
        LOGGER.warning(
            "%s: passed over a message that is no event: partition %d offset %d: %s (%s)",
            product,
            poison.partition,
            poison.offset,
            poison.what,
            poison.reason,
        )

    return log


class Worker:
    """The Faust application. One worker has all partitions; every other one waits to take over."""

    def __init__(self, mesh: Mesh, *, until_caught_up: bool) -> None:
        self._desk = Desk(mesh)
        self._until_caught_up = until_caught_up
        self._end = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._app = faust_app(mesh, "vouchers", standby=True)
        self._app.on_partitions_assigned.connect(self._assigned)
        for product in (FLIGHTS, BOOKINGS):
            self._app.agent(faust_topic(self._app, mesh, product), name=product)(self._agent(product))

    async def run(self) -> None:
        """Work until Ctrl-C, SIGTERM or an error, or until everything is caught up.

        Raises:
            HeadraceError: what stopped it.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._end.set)
        try:
            await self._app.start()
            await self._app.wait(self._end.wait())
        finally:
            self._desk.break_off()
            # Faust leaves its group, for which it may wait as long as the broker is away.
            await asyncio.wait([asyncio.ensure_future(self._app.stop())], timeout=STOP_S)
        if self._app.crash_reason is not None:
            raise self._app.crash_reason

    def _agent(self, product: str) -> Callable[[StreamT[Any]], Awaitable[None]]:
        async def agent(events: StreamT[Any]) -> None:
            async for event in events:
                await self._desk.take(product, event)

        return agent

    async def _assigned(self, *sent: Any, **_: Any) -> None:
        assigned: set[TP] = sent[-1]
        self._desk.close()
        if assigned:
            # Not here: the group waits for this to return.
            self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        try:
            published = await self._desk.open()
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the worker and is raised from run
            await self._app.crash(error)
            return
        print(f"ready: {published:,} vouchers were due and are published", flush=True)  # noqa: T201 - a command's output
        if self._until_caught_up:
            self._end.set()


async def work(mesh: Mesh, *, until_caught_up: bool) -> None:
    """Run the worker; it is made inside the loop that it runs in."""
    await Worker(mesh, until_caught_up=until_caught_up).run()


def main() -> int:
    """Run the worker and return its exit code: 0 ended as told, 1 a fault."""
    parser = argparse.ArgumentParser(description="publishes marketing.delay_vouchers")
    parser.add_argument(
        "--until-caught-up", action="store_true", help="end when all that is there now has its vouchers"
    )
    parser.add_argument("--mesh", type=Path, default=Path(__file__).parent, help="the mesh's folder")
    parser.add_argument("--environment", help="the mesh's environment")
    options = parser.parse_args()
    try:
        mesh = load_mesh(options.mesh, environment=options.environment)
        asyncio.run(work(mesh, until_caught_up=options.until_caught_up))
    except HeadraceError as error:
        show_error(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
