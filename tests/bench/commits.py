"""What a commit costs as its table ages: the seconds of commits 4,951 to 5,000 beside those of commits 41 to 90.

Run it with ``PYTHONPATH=. python tests/bench/commits.py``. A real SQLite catalog and real files in a temporary folder;
the commits are one second apart on a clock that is moved by hand, so that snapshots expire as they would in 5,000
seconds, and files are looked after as in a sink. It prints medians and their ratio; nothing is asserted, because
machines differ and are noisy.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import time_machine

from headrace.schemas.avro import AvroSchema
from headrace.sinks.commit import stage
from headrace.sinks.draft import Draft
from headrace.sinks.upkeep.deletion import LOOK_S, Deletion
from headrace.sinks.upkeep.expiry import Expiry
from headrace.streams.ledger import Range
from tests.support.lake import Lake

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA = AvroSchema.parse('{"type": "record", "name": "Event", "fields": [{"name": "id", "type": "long"}]}')
# Later than any real clock, because the files' own times are real: a list waits an hour from the later one.
BEGIN = datetime(2100, 1, 1, 12, 0, tzinfo=UTC)
COMMITS = 5_000
# Commits are numbered from 1. The first ones warm up caches.
EARLY = range(41, 91)
LATE = 50


@dataclass
class Ageing:
    """A table that is committed to each second, with expiry and deletion.

    Attributes:
        seconds: what each commit took: loading the table, staging, sending; the data file is written before.
        cpu_seconds: how much of that was computed, which others on the machine change little.
        snapshots: how many snapshots the table had after each.
        deleted: files that were deleted.
    """

    lake: Lake
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    snapshots: list[int] = field(default_factory=list)
    deleted: int = 0

    def run(self, commits: int) -> None:
        """Commit so often, one second after the other."""
        expiry = Expiry(self.lake.product.contract.upkeep)
        deletion = Deletion(self.lake.product, expiry.seen)
        with time_machine.travel(BEGIN, tick=False) as now:
            for number in range(commits):
                now.move_to(BEGIN + timedelta(seconds=number))
                self._commit(number, expiry)
                if not number % LOOK_S:
                    self.deleted += deletion.look(self.lake.table).deleted

    def _commit(self, number: int, expiry: Expiry) -> None:
        lake, start = self.lake, self.lake.ledger.next(0)
        written = lake.write(pa.array([{"id": number}], pa.struct({"id": pa.int64()})))
        began_s, cpu_s = time.perf_counter(), time.process_time()
        table = lake.reload()
        after = lake.ledger.advanced({0: Range(start, start + 1, start)})
        lake.send(stage(table, Draft(after, written.files, expired=expiry(table))))
        self.seconds.append(time.perf_counter() - began_s)
        self.cpu_seconds.append(time.process_time() - cpu_s)
        lake.ledger = after
        self.snapshots.append(len(lake.reload().metadata.snapshots))


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median in milliseconds."""
    return 1_000 * statistics.median(seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=COMMITS)
    commits = parser.parse_args().commits
    with tempfile.TemporaryDirectory() as folder:
        ageing = Ageing(Lake(Path(folder), SCHEMA))
        ageing.run(commits)
        files = sum(1 for file in Path(folder).rglob("*") if file.is_file())
    for name, seconds in (("in all", ageing.seconds), ("computed", ageing.cpu_seconds)):
        early, late = median_ms(seconds[EARLY.start - 1 : EARLY.stop - 1]), median_ms(seconds[-LATE:])
        print(
            f"{name}: commits {EARLY.start} to {EARLY.stop - 1} {early:.1f} ms, the last {LATE} {late:.1f} ms", end=", "
        )
        print(f"ratio {late / early:.2f}")
    print(f"snapshots {ageing.snapshots[EARLY.stop - 2]} and {ageing.snapshots[-1]}; {files:,} files", end=", ")
    print(f"{ageing.deleted:,} deleted")


if __name__ == "__main__":
    main()
