"""Storms: a product's events stream in while its workers join, leave, freeze and die at random moments."""

from __future__ import annotations

import random
import signal
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Self

from confluent_kafka import Producer

from headrace.schemas.mesh import load_mesh
from headrace.selfserve.apply import apply
from tests.support.forked import started
from tests.support.meshes import ORDERS, encoded, order, query
from tests.support.sinks import assert_exactly_once, caught_up, dead_letters, registered_id
from tests.support.waiting import PATIENCE_S, eventually, lasting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from headrace.schemas.mesh import Mesh
    from tests.support.forked import Process
    from tests.support.meshes import Cluster

PARTITIONS = 4
# A worker that was killed is missed after this: shorter than most meshes', so that many die in a test's time.
SESSION_S = 3.0
TRANSACTION_ROWS = 250
# Every so many transactions is aborted by its producer, and every so many messages is poison.
ABORTED, POISON = 5, 1_000
# What happens to workers.
THINGS = {"join", "leave", "freeze", "kill"}


def stormy_mesh(cluster: Cluster, root: Path, prefix: str, *, partitions: int = PARTITIONS) -> Mesh:
    """Return a mesh of `shop.orders` with four partitions, applied, whose workers are missed within seconds."""
    mesh = cluster.mesh(root, prefix=prefix)
    contract = root / "domains" / "shop" / "orders" / "contract.odcs.yaml"
    contract.write_text(contract.read_text().replace("value: 2}", f"value: {partitions}}}"), encoding="utf-8")
    short = f"session.timeout.ms: {SESSION_S * 1_000:.0f}, heartbeat.interval.ms: 500"
    settings = root / "mesh.yaml"
    settings.write_text(settings.read_text().replace("session.timeout.ms: 6000", short), encoding="utf-8")
    mesh = load_mesh(root, environment="cluster")
    apply(mesh, lambda _: None)
    return mesh


def let_sleepers_lie(mesh: Mesh) -> None:
    """Let whoever falls asleep while it reads the catalog keep nobody from writing: with SQLite's write-ahead log."""
    for catalog in mesh.root.glob("tables/*/catalog.db"):
        with closing(sqlite3.connect(catalog)) as connection:
            assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)


class Transactions:
    """A producer that goes on sending transactions, some of them aborted and a little of them poison.

    It begins behind the last one of ``after``, and goes on counting where that one has ended.

    Attributes:
        sent: how many events are in transactions that were committed.
        total: the sum of those events' numbers.
        poison: how many messages of those cannot be read.
        last: the number of the last transaction.
    """

    def __init__(self, mesh: Mesh, *, pace_s: float = 0.05, after: Transactions | None = None) -> None:
        self._mesh = mesh
        self._product = mesh.product(ORDERS)
        self._schema_id = registered_id(mesh, self._product)
        self._pace_s = pace_s
        self._partitions = self._product.contract.partitions
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._fault: Exception | None = None
        self.sent: int = after.sent if after else 0
        self.total: int = after.total if after else 0
        self.poison: int = after.poison if after else 0
        self.aborted: int = after.aborted if after else 0
        self.last: int = after.last if after else 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the producer does not end"
        if self._fault is not None and error is None:
            raise self._fault
        if self._fault is not None and error is not None:
            error.add_note(f"the producer had failed before: {self._fault!r}")

    def _run(self) -> None:
        try:
            config = {**self._mesh.environment.kafka_config(), "transactional.id": self._product.topic, "linger.ms": 5}
            # Settings of consumers alone, which a producer would warn of.
            producer = Producer({name: value for name, value in config.items() if "interval" not in name})
            producer.init_transactions(PATIENCE_S)
            for transaction in count(self.last + 1):
                if self._stop.wait(self._pace_s):
                    return
                self._send(producer, transaction)
                self.last = transaction
        except Exception as error:  # noqa: BLE001 - raised again where the block ends
            self._fault = error

    def _send(self, producer: Producer, transaction: int) -> None:
        first = transaction * TRANSACTION_ROWS
        numbers = range(first, first + TRANSACTION_ROWS)
        # One in a thousand, each in the next partition.
        poison = [n for n in numbers if n % POISON == POISON // 2 + n // POISON % self._partitions]
        producer.begin_transaction()
        for number in numbers:
            value = encoded(self._product.schema, self._schema_id, order(number))
            producer.produce(
                self._product.topic,
                value[:-1] if number in poison else value,
                f"o{number}",
                partition=number % self._partitions,
            )
        if transaction % ABORTED == 0:
            producer.flush(PATIENCE_S)
            producer.abort_transaction(PATIENCE_S)
            self.aborted += 1
            return
        producer.commit_transaction(PATIENCE_S)
        self.poison += len(poison)
        self.sent += len(numbers) - len(poison)
        self.total += sum(numbers) - sum(poison)


@dataclass
class Storm:
    """Workers of one product, to which things happen at random.

    Attributes:
        mesh: the mesh.
        folder: where the workers' logs go.
        dice: decides what happens and when.
        workers: how many there are at most.
        static: whether they are static members of the group: who comes in the place of another takes its name.
        running: those that run, frozen ones included.
        frozen: those that sleep, and when each wakes.
        done: how often each thing has happened.
    """

    mesh: Mesh
    folder: Path
    dice: random.Random
    workers: int = 4
    static: bool = False
    running: list[Process] = field(default_factory=list)
    frozen: dict[int, float] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    _all: list[Process] = field(default_factory=list)
    _named: dict[int, str] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        while len(self.running) < self.workers:
            self.join()
        assert eventually(lambda: self.rows > 0), self.logs()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            process.kill()

    @property
    def rows(self) -> int:
        """Rows that the workers have told to have landed, so far; a killed one may have landed more."""
        return sum(sum(process.landed) for process in self._all)

    def logs(self) -> str:
        """Return the ends of the logs of those that run."""
        return "\n".join(process.text()[-2_000:] for process in self.running)

    def _did(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1

    def join(self) -> None:
        """Start a worker."""
        log = self.folder / f"worker-{len(self._all)}.log"
        name = self._names.pop() if self._names else f"sink-{len(self._all)}"
        process = started(self.mesh, ORDERS, log, instance_id=name if self.static else None)
        self._named[id(process)] = name
        self._all.append(process)
        self.running.append(process)
        self._did("join")

    def kill(self) -> None:
        """Kill a worker at once, whatever it does."""
        process = self.dice.choice(self.running)
        self._gone(process)
        process.signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.text()
        self._did("kill")

    def leave(self) -> None:
        """Tell a worker to end; it lands once more and leaves the group."""
        process = self.dice.choice(self.running)
        self._gone(process)
        process.signal(signal.SIGCONT)
        process.signal(signal.SIGTERM)
        status = process.wait()
        assert status == 0, f"exit status {status}: {process.text()}"
        self._did("leave")

    def freeze(self, *, longest_s: float) -> None:
        """Let a worker sleep; it wakes at random, mostly after the group has given its partitions to others."""
        process = self.dice.choice(self.running)
        process.signal(signal.SIGSTOP)
        self.frozen[id(process)] = time.monotonic() + self.dice.uniform(SESSION_S / 2, longest_s)
        self._did("freeze")

    def wake(self, *, all_of_them: bool = False) -> None:
        """Wake those that have slept long enough."""
        for process in self.running:
            until = self.frozen.get(id(process))
            if until is not None and (all_of_them or time.monotonic() >= until):
                del self.frozen[id(process)]
                process.signal(signal.SIGCONT)

    def _gone(self, process: Process) -> None:
        self._names.append(self._named.pop(id(process)))
        self.running.remove(process)
        self.frozen.pop(id(process), None)

    def kill_and_replace(self, kills: int, *, pause_s: float) -> None:
        """Kill so many, one after the other at random moments, and start another for each."""
        for _ in range(kills):
            lasting(self.dice.uniform(0, pause_s))
            self.kill()
            self.join()

    def blow(self, seconds: float, *, longest_sleep_s: float) -> None:
        """Let workers join, leave, freeze and die at random, until each of these has happened too."""
        until_s, joined = time.monotonic() + seconds, self.done["join"]
        while time.monotonic() < until_s or self.done.keys() < THINGS or self.done["join"] == joined:
            lasting(self.dice.uniform(0, 1.0))
            self.wake()
            if len(self.running) < self.workers and self.dice.random() < 0.6:
                self.join()
            elif len(self.running) > 1:
                things: list[Callable[[], None]] = [self.kill, self.leave]
                if len(self.running) - len(self.frozen) > 1:
                    things.append(lambda: self.freeze(longest_s=longest_sleep_s))
                self.dice.choice(things)()
        self.wake(all_of_them=True)


def seeded() -> tuple[int, random.Random]:
    """Return a seed, which pytest shows with a test that fails, and its dice."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest keeps it for a test that fails
    return seed, random.Random(seed)


def assert_all_there(mesh: Mesh, sent: Transactions) -> None:
    """Let a last worker land what is left, then prove it, count it by DuckDB, and count the dead letters."""
    assert caught_up(mesh, ORDERS).outcomes == {ORDERS: True}
    found = query(mesh, f"SELECT count(*), count(DISTINCT id), sum(amount)::BIGINT FROM {ORDERS}")
    assert found == [(sent.sent, sent.sent, sent.total)]
    product = mesh.product(ORDERS)
    letters = {
        (headers["headrace.partition"], headers["headrace.offset"]) for headers, _, _ in dead_letters(mesh, product)
    }
    assert len(letters) == sent.poison
    assert_exactly_once(mesh, ORDERS)
