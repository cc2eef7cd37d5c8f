"""A session on a real table, with a topic in memory: what it tells of its landings, and when the next batch is due."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import Unavailable
from headrace.schemas.masking import Masker
from headrace.sinks.attempts import land
from headrace.sinks.batch import Limits
from headrace.sinks.draft import Draft
from headrace.sinks.files import Shape
from headrace.sinks.landing import Desk, Landed, Landing, Step
from headrace.sinks.patience import Patience
from headrace.sinks.session import Session
from headrace.sinks.work import Works
from headrace.streams.admin import Topic, Watermarks
from headrace.streams.frames import Frame
from headrace.streams.ledger import Range
from headrace.streams.reader import Polled
from tests.support.lake import TOPIC_ID, Lake, chunk_of
from tests.support.meshes import ORDER
from tests.support.workers import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from pyiceberg.table import Table

    from headrace.sinks.batch import Chunk
    from headrace.sinks.decoding import Decoding
    from headrace.streams.admin import Admin
    from headrace.streams.reader import Rebalance

WITHIN_S = 60.0
EVENT = pa.struct([("id", pa.string()), ("amount", pa.int64()), ("email", pa.string())])


class Cluster:
    """A cluster with one topic of one partition."""

    def topic(self, name: str) -> Topic:
        return Topic(name, TOPIC_ID, 1)

    def watermarks(self, _topic: Topic) -> Mapping[int, Watermarks]:
        return {0: Watermarks(0, 1_000)}


class Decoder:
    """Frames whose keys are the events' ids."""

    def chunk(self, frame: Frame) -> Chunk:
        rows = [{"id": key.decode(), "amount": 1, "email": None} for key in frame.keys.to_pylist()]
        return chunk_of(pa.array(rows, EVENT), int(frame.offsets[0]))


@dataclass
class Script:
    """A reader that brings what a test says, poll by poll, and then sets ``over``; what says None is asked again."""

    polls: list[Callable[[], list[str] | None]]
    over: threading.Event
    rebalance: Rebalance
    position: int | None = None

    def poll(self, timeout_s: float) -> Polled:
        if self.position is None:
            self.position = self.rebalance.assigned([0])[0]
        if not self.polls:
            self.over.set()
            return Polled()
        ids = self.polls[0]()
        if ids is not None:
            del self.polls[0]
        if not ids:
            return Polled(ends={0: self.position})
        start, self.position = self.position, self.position + len(ids)
        keys = pa.array([each.encode() for each in ids], pa.binary())
        frame = Frame(0, 1, np.arange(start, self.position), np.zeros(len(ids), np.int64), keys, keys)
        return Polled((frame,))

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def announce(self, positions: Mapping[int, int]) -> None: ...

    def close(self) -> None: ...


@dataclass
class Told:
    """What a session tells."""

    landed: list[Landed] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    reached: list[float | None] = field(default_factory=list)
    kept: list[tuple[str, list[int]]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def land(self, landed: Landed, seconds: float) -> None:
        self.landed.append(landed)
        self.seconds.append(seconds)

    def step(self, step: Step) -> None:
        if step is Step.LANDED:
            self.done.set()


@dataclass
class Keeping:
    """An upkeep that notes what it is told."""

    told: list[tuple[str, list[int]]]

    def landed(self, _landed: Landed, partitions: Collection[int]) -> None:
        self.told.append(("landed", list(partitions)))

    def polled(self, partitions: Collection[int]) -> None:
        self.told.append(("polled", list(partitions)))

    def close(self) -> None:
        self.told.append(("closed", []))


def desk_of(lake: Lake, branch: str = "main", expire: Callable[[Table], tuple[int, ...]] = lambda _: ()) -> Desk:
    shape = Shape(lake.product, lake.reader.record, Masker(lake.product.masks, b"k" * 32), key_masked=False)
    return Desk(lake.product, lake.catalog, Mailbox(), lambda _: shape, lambda: TOPIC_ID, branch, expire)


def run(lake: Lake, told: Told, limits: Limits, *polls: Callable[[], list[str] | None]) -> None:
    works = Works(
        lake.product,
        cast("Admin", Cluster()),
        cast("Decoding", Decoder()),
        desk_of(lake),
        limits,
        Patience(lambda _: None),
        told.step,
        told.land,
        threading.Event(),
        reached=told.reached.append,
        upkeep=lambda _: Keeping(told.kept),
    )
    over = threading.Event()
    with Session(works, partial(Script, list(polls), over)) as session:
        session.run(over)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, AvroSchema.parse(json.dumps(ORDER)))


def test_a_landing_is_timed_where_it_lands_and_not_where_it_is_heard_of(lake: Lake) -> None:
    told = Told()
    heard_s: list[float] = []

    def busy() -> list[str]:
        """A poll that lasts until the batch has landed: only then is the landing's outcome taken."""
        assert told.done.wait(WITHIN_S)
        heard_s.append(time.time())
        return []

    run(lake, told, Limits(age_s=0), lambda: ["a"], busy)
    assert [landed.rows for landed in told.landed] == [1]
    assert told.landed[0].at_s <= heard_s[0]
    assert told.seconds[0] > 0


def test_the_landing_of_a_scattered_batch_lets_the_next_one_wait(lake: Lake) -> None:
    with lake.table.update_spec() as update:
        update.add_identity("id")
    lake.reload()
    told = Told()

    def heard() -> list[str]:
        assert told.done.wait(WITHIN_S)
        return []

    first, second = [f"o{number}" for number in range(17)], ["x"]
    waiting = [lambda: second, *[list[str]] * 20]
    run(lake, told, Limits(age_s=0, scattered_age_s=3_600), lambda: first, heard, *waiting, lambda: ["y"])
    # The second batch was open until the stop, and took in what came last.
    assert [landed.files for landed in told.landed] == [17, 2]
    assert [landed.rows for landed in told.landed] == [17, 2]


def test_a_session_that_ends_leaves_no_watermark_behind(lake: Lake) -> None:
    """The next one may have other partitions, or none: then nobody would ever take it back."""
    told = Told()

    def reached() -> list[str] | None:
        """Polls until the outcome has been taken, which may be long after the landing's last step."""
        return [] if told.reached else None

    def broken() -> list[str]:
        raise Unavailable("the broker is gone")

    with pytest.raises(Unavailable):
        run(lake, told, Limits(age_s=0), lambda: ["a"], reached, broken)
    assert told.reached[0] is not None
    assert told.reached[-1] is None


def test_upkeep_is_told_of_polls_also_where_nothing_lands(lake: Lake) -> None:
    told = Told()
    run(lake, told, Limits(age_s=0), *[list[str]] * 3)
    assert told.kept == [*[("polled", [0])] * 4, ("closed", [])]


def test_upkeep_is_told_of_commits(lake: Lake) -> None:
    told = Told()

    def heard() -> list[str]:
        assert told.done.wait(WITHIN_S)
        return []

    run(lake, told, Limits(age_s=0), lambda: ["a"], heard)
    assert [each for each in told.kept if each[0] == "landed"] == [("landed", [0])]


@pytest.mark.parametrize("branch", ["main", "rebuilt"])
def test_only_a_commit_to_main_removes_snapshots(lake: Lake, branch: str) -> None:
    first = lake.add(pa.array([{"id": "a", "amount": 1, "email": None}], EVENT))
    lake.add(pa.array([{"id": "b", "amount": 1, "email": None}], EVENT))
    base = lake.ledger
    start = base.next(0)
    if branch != "main":
        assert land(lake.catalog, lake.product, lambda _: Draft(base, branch=branch)) is not None
    chunk = chunk_of(pa.array([{"id": "c", "amount": 1, "email": None}], EVENT), start)
    desk = desk_of(lake, branch, lambda _: (first,))
    landing = Landing(desk, base, {0: Range(start, start + 1, start)}, [chunk])
    assert Step.LANDED in list(landing)
    assert (lake.reload().snapshot_by_id(first) is None) == (branch == "main")
