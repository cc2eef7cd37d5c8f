"""Running audits for tests, in processes of their own, and reading what they publish."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import fastavro
from confluent_kafka import Consumer, Message, TopicPartition

from headrace.governance.docket import Finding
from headrace.governance.judge import FINDINGS
from headrace.governance.scanner import OBSERVATIONS
from tests.support.sinks import ROOT, eventually
from tests.support.topics import transactions_ended
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headrace.schemas.mesh import Mesh

# How many times as long a busy machine may take as a quiet one.
BUSY = 12.0


@dataclass
class Audit:
    """An audit in a process of its own. Its log is a file."""

    popen: subprocess.Popen[str]
    log: Path

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self.popen.pid, number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end and return its exit status."""
        return self.popen.wait(timeout_s)

    def text(self) -> str:
        """Return the log."""
        return self.log.read_text(encoding="utf-8")

    def logged(self, text: str) -> bool:
        """Tell whether the log holds a text."""
        return text in self.text()

    def scans_and_judges(self) -> bool:
        """Tell whether this process has begun to scan and to judge."""
        return self.logged("event=scanning") and self.logged("event=judging")

    def has_a_part(self) -> bool:
        """Tell whether this process has been told its part in both halves: to work, or to stand by."""
        judges = self.logged("event=judging") or self.logged("another process judges")
        return judges and (self.logged("event=scanning") or self.logged("another process scans"))


@contextmanager
def auditing(mesh: Mesh, log: Path, *options: str, warm: bool = True) -> Iterator[Audit]:
    """Run ``headrace audit`` while the block lasts; then kill it if it still runs."""
    command = [sys.executable, "-m", "headrace.selfserve.main", "--mesh", str(mesh.root), "--environment", "cluster"]
    with (
        log.open("a") as stderr,
        subprocess.Popen([*command, "audit", *options], cwd=ROOT, stderr=stderr, text=True) as popen,
    ):
        audit = Audit(popen, log)
        try:
            if warm:
                assert eventually(audit.scans_and_judges), audit.text()
            yield audit
        finally:
            if popen.poll() is None:
                popen.kill()


def is_at_rest(mesh: Mesh) -> bool:
    """Tell whether no transaction is open in governance's topics."""
    return transactions_ended(mesh, OBSERVATIONS, FINDINGS)


@dataclass
class Published:
    """Reads a product's topic of one partition as any read_committed consumer does, and decodes with fastavro."""

    mesh: Mesh
    product: str
    events: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Self:
        found = self.mesh.product(self.product)
        self._schema = found.schema.parsed
        config = {**self.mesh.environment.kafka_config(), "group.id": "test", "enable.auto.commit": False}
        config |= {"auto.offset.reset": "earliest", "fetch.wait.max.ms": 50, "enable.partition.eof": True}
        self._consumer = Consumer(config)
        self._place, self._read_to = TopicPartition(found.topic, 0, 0), 0
        self._consumer.assign([self._place])
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def look(self) -> list[dict[str, Any]]:
        """Return all events that were committed when it was asked."""
        _, end = self._consumer.get_watermark_offsets(self._place, PATIENCE_S)
        deadline_s = time.monotonic() + PATIENCE_S
        while self._read_to < end and time.monotonic() < deadline_s:
            for message in self._consumer.consume(500, 0.05):
                self._take(message)
        return self.events

    def _take(self, message: Message) -> None:
        if (error := message.error()) is not None:
            # That the end was reached tells how far it has read: behind the last event there are marks of transactions.
            assert error.name() == "_PARTITION_EOF" or error.retriable(), error
            self._read_to = max(self._read_to, message.offset() or 0)
            return
        value = message.value()
        assert value is not None
        event = fastavro.schemaless_reader(io.BytesIO(value[5:]), self._schema, self._schema)
        assert isinstance(event, dict)
        self.events.append(event)


class FoundSoFar(Published):
    """Reads what was found. At the end it looks whether any cause was found twice."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__(mesh, FINDINGS)
        self._expected: dict[str, int] = {}

    def __exit__(self, *raised: object) -> None:
        # A second event of the last cause would come with one of the next looks.
        twice = not any(raised) and bool(self._expected) and eventually(self._found_twice, within_s=2.5)
        super().__exit__(*raised)
        assert not twice, "a cause was found twice"

    def of(self, topic: str) -> list[Finding]:
        """Return the findings' events of a topic, in order."""
        return [Finding.from_event(event) for event in self.look() if event["topic"] == topic]

    def within(self, seconds: float, cause: Callable[[], object], topic: str, count: int = 1) -> list[Finding]:
        """Let a cause happen; return the new events of a topic once there are so many. No more may come of it, ever.

        The clock runs from before the cause. ``seconds`` is what a quiet machine keeps; a busy one may take far longer.
        """
        before = len(self.of(topic))
        assert before == self._expected.get(topic, before), f"a cause was found twice: {self.of(topic)}"
        cause()
        found = eventually(lambda: len(self.of(topic)) >= before + count, within_s=BUSY * seconds)
        assert found, f"nothing was found: {self.of(topic)}"
        self._expected[topic] = before + count
        return self.of(topic)[before : before + count]

    def _found_twice(self) -> bool:
        return any(len(self.of(topic)) > count for topic, count in self._expected.items())


def observed(mesh: Mesh) -> list[dict[str, Any]]:
    """Return all observations."""
    with Published(mesh, OBSERVATIONS) as published:
        eventually(lambda: bool(published.look()))
        return list(published.look())
