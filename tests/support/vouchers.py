"""The example's voucher worker as a process on a test's cluster, and what it must have published in the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

from headrace.producers.resumable import publish_all
from headrace.schemas.mesh import Mesh, load_mesh
from headrace.selfserve.apply import apply
from headrace.streams.subscriber import Reading, Start, Subscriber
from tests.support.meshes import query, write
from tests.support.sinks import ROOT, caught_up, eventually
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import ModuleType

    from headrace.selfserve.stack import Endpoints

AIRLINE = ROOT / "examples" / "airline"
FLIGHTS, BOOKINGS, VOUCHERS = "operations.flights", "loyalty.bookings", "marketing.delay_vouchers"
# US dollars for each full hour that a flight left late, up to three.
HOURLY = {"BASIC": 25, "SILVER": 50, "GOLD": 75, "PLATINUM": 100}

Event = dict[str, Any]


def airline(root: Path, endpoints: Endpoints, prefix: str) -> Mesh:
    """Copy the example mesh, with an environment on the test's cluster, and apply it."""
    shutil.copytree(AIRLINE, root, ignore=shutil.ignore_patterns(".headrace", "__pycache__"))
    write(
        root / "mesh.yaml",
        f"""
        name: airline
        environments:
          cluster:
            stack: external
            topic_prefix: {prefix}
            sink: {{commit_interval_s: 0.2}}
            kafka: {{bootstrap.servers: "{endpoints.bootstrap_servers}", session.timeout.ms: 6000}}
            registry: {{url: "{endpoints.registry_url}"}}
            masking: {{hmac_key: "${{file:hmac.key}}"}}
            catalog:
              type: sql
              uri: "sqlite:///{{state}}/tables/{{storage}}/catalog.db"
              warehouse: "file://{{state}}/tables/{{storage}}/warehouse"
        """,
    )
    write(root / "hmac.key", "5e" * 32)
    mesh = load_mesh(root, environment="cluster")
    apply(mesh, lambda _: None)
    return mesh


def source() -> ModuleType:
    """Return the example's source of events."""
    spec = spec_from_file_location("airline_source", AIRLINE / "source.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _everything() -> tuple[Sequence[Event], Sequence[Event]]:
    """Return all flights and all bookings of the example."""
    events = source().events
    return list(events(FLIGHTS)), list(events(BOOKINGS))


@dataclass(frozen=True)
class Inputs:
    """Real flights and bookings of them, in the order of the source."""

    flights: Sequence[Event]
    bookings: Sequence[Event]

    @classmethod
    def of(cls, bookings: int) -> Inputs:
        """Return so many bookings, spread over the year, and their flights."""
        flights, booked = _everything()
        chosen = booked[:: len(booked) // bookings][:bookings]
        wanted = {booking["flight_id"] for booking in chosen}
        return cls([flight for flight in flights if flight["flight_id"] in wanted], chosen)

    def vouchers(self) -> Counter[tuple[str, str, int, str, Decimal]]:
        """Return what must be published: booking, flight, minutes, tier, amount."""
        late = {f["flight_id"]: f["dep_delay"] for f in self.flights if (f["dep_delay"] or 0) >= 60}
        return Counter(
            (
                b["booking_id"],
                b["flight_id"],
                late[b["flight_id"]],
                b["tier"],
                Decimal(HOURLY[b["tier"]] * min(hours, 3)),
            )
            for b in self.bookings
            if b["flight_id"] in late
            for hours in [late[b["flight_id"]] // 60]
        )

    def part(self, number: int, parts: int) -> Inputs:
        """Return a part: early flights with late bookings, so that either side may come first."""
        flights, bookings = self.flights[number::parts], self.bookings[parts - 1 - number :: parts]
        return Inputs(flights, bookings)

    def publish(self, mesh: Mesh, identity: str) -> None:
        """Publish both sides at once."""
        sides = ((FLIGHTS, self.flights), (BOOKINGS, self.bookings))
        threads = [
            threading.Thread(
                target=publish_all, args=(mesh, name, list(enumerate(events))), kwargs={"identity": identity}
            )
            for name, events in sides
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def in_topic(mesh: Mesh) -> int:
    """Return how many vouchers a reader of committed records finds in the topic."""
    reading = Reading(until_end=True)
    with Subscriber[Event](mesh, VOUCHERS, group=None, start=Start.EARLIEST, reading=reading) as events:
        return sum(len(batch) for batch in events.batches())


def in_table(mesh: Mesh) -> Counter[tuple[str, str, int, str, Decimal]]:
    """Run the product's sink until it has caught up, and return the vouchers in the table."""
    assert caught_up(mesh, VOUCHERS).outcomes == {VOUCHERS: True}
    columns = "booking_id, flight_id, minutes_late, tier, amount"
    assert query(mesh, f"SELECT count(*) - count(DISTINCT voucher_id) FROM {VOUCHERS}") == [(0,)]
    return Counter(query(mesh, f"SELECT {columns} FROM {VOUCHERS}"))


@dataclass
class Worker:
    """A worker in a process of its own."""

    popen: subprocess.Popen[str]
    log: Path
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        self.said.extend(self.popen.stdout)

    def ready(self, *, within_s: float = PATIENCE_S) -> bool:
        """Wait until it takes in one event after the other."""
        eventually(lambda: bool(self.said) or self.popen.poll() is not None, within_s=within_s)
        return any(line.startswith("ready: ") for line in self.said)

    def ends(self, *, within_s: float = PATIENCE_S) -> int:
        """Wait for its end and return its exit status."""
        status = self.popen.wait(within_s)
        self._reader.join(PATIENCE_S)
        return status

    def text(self) -> str:
        """Return everything that it wrote."""
        return "".join(self.said) + self.log.read_text(encoding="utf-8")


@contextmanager
def worker(mesh: Mesh, *options: str, log: str = "worker.log") -> Iterator[Worker]:
    """Run a worker while the block lasts; then kill it if it still runs."""
    path = mesh.root / log
    command = [sys.executable, str(mesh.root / "vouchers.py"), "--environment", "cluster", *options]
    with (
        path.open("w") as stderr,
        subprocess.Popen(
            command,
            cwd=mesh.root.parent,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as popen,
    ):
        try:
            yield Worker(popen, path)
        finally:
            if popen.poll() is None:
                popen.kill()
