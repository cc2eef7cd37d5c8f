"""What a replay reads: up to given positions exactly, and nothing that only a sink may begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import Held, ProductStopped, Unavailable
from headrace.schemas.mesh import load_mesh
from headrace.schemas.registry import Registry
from headrace.selfserve.stack import Endpoints
from headrace.sinks.batch import Letter
from headrace.sinks.dead_letters.table import filed
from headrace.sinks.replay.boundary import BRANCH
from headrace.sinks.replay.drain import Drain, ReaderUpTo
from headrace.streams.frames import Frame
from headrace.streams.reading import Polled
from tests.support.meshes import ORDER, ORDERS, write_mesh
from tests.support.rewinding import Shop
from tests.support.workers import TOPIC_ID, Mailbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Tape:
    """A reader that plays what was recorded."""

    def __init__(self, polls: Sequence[Polled]) -> None:
        self._polls = list(polls)
        self.calls: list[str] = []

    def poll(self, _timeout_s: float) -> Polled:
        return self._polls.pop(0)

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def announce(self, positions: Mapping[int, int]) -> None:
        self.calls.append(f"announce {dict(positions)}")

    def close(self) -> None:
        self.calls.append("close")


def frame(partition: int, schema_id: int, offsets: Sequence[int]) -> Frame:
    count = len(offsets)
    values = pa.array([b"v%d" % offset for offset in offsets], pa.binary())
    stamps = np.array(offsets, np.int64) * 1_000
    keys = pa.nulls(count, pa.binary())
    headers = np.array([None] * count, object)
    return Frame(partition, schema_id, np.array(offsets, np.int64), stamps, keys, values, headers)


@given(
    logs=st.dictionaries(st.integers(0, 2), st.lists(st.integers(0, 30), unique=True, max_size=12).map(sorted)),
    ends=st.dictionaries(st.integers(0, 2), st.integers(0, 32)),
    cut=st.integers(0, 12),
)
def test_it_reaches_each_position_and_never_passes_it(
    logs: dict[int, list[int]], ends: dict[int, int], cut: int
) -> None:
    """Messages come in two polls, of two schema ids that alternate; at the end each partition's end is told."""
    polls = []
    for part in (slice(0, cut), slice(cut, None)):
        frames = [
            frame(partition, schema_id, some)
            for partition, offsets in logs.items()
            for schema_id in (1, 2)
            if (some := [offset for offset in offsets[part] if offset % 2 == schema_id - 1])
        ]
        polls.append(Polled(frames))
    polls.append(Polled(ends=dict.fromkeys(logs, 40)))
    reader = ReaderUpTo(Tape(polls), ends)
    read: dict[int, list[int]] = {partition: [] for partition in logs}
    positions = dict.fromkeys(logs, 0)
    for _ in polls:
        polled = reader.poll(0.1)
        for each in polled.frames:
            assert [value.as_py() for value in each.values] == [b"v%d" % offset for offset in each.offsets]
            assert len(each.keys) == len(each.timestamps_ms) == len(each.offsets) > 0
            read[each.partition] += each.offsets.tolist()
            positions[each.partition] = max(positions[each.partition], int(each.offsets[-1]) + 1)
        for partition, end in polled.ends.items():
            # Whoever believes an end has read all before it.
            assert set(read[partition]) >= {offset for offset in logs[partition] if offset < end}
            positions[partition] = max(positions[partition], end)
    for partition, offsets in logs.items():
        assert sorted(read[partition]) == [offset for offset in offsets if offset < ends.get(partition, 0)]
        assert positions[partition] == ends.get(partition, 0)


def test_all_else_is_the_readers_own() -> None:
    tape = Tape([])
    reader = ReaderUpTo(tape, {})
    reader.pause()
    reader.resume()
    reader.announce({0: 5})
    reader.close()
    assert tape.calls == ["pause", "resume", "announce {0: 5}", "close"]


def test_what_is_refused_today_is_entered_in_the_table_of_dead_letters(tmp_path: Path) -> None:
    """It may have been a row until now."""
    shop = Shop.at(tmp_path)
    shop.land(4)
    mesh = load_mesh(tmp_path, environment="cluster")
    with Registry(mesh.environment.registry_config()) as registry:
        desk = Drain(mesh, shop.product, registry, shop.catalog, print)._desk(Mailbox(), lambda: TOPIC_ID)
    assert desk.branch == BRANCH
    desk.register.send([Letter(0, 3, None, "wire-format", b"k", b"v", 5)], shop.ledger())
    letters = load_table(shop.catalog, filed(shop.product)).scan().to_arrow()
    assert letters.column("_kafka_offset").to_pylist() == [3]


def test_it_never_waits_for_a_hold_that_may_be_its_own(tmp_path: Path) -> None:
    shop = Shop.at(tmp_path)
    write_mesh(tmp_path, Endpoints("127.0.0.1:9", "http://127.0.0.1:9"), "t.", {ORDERS: ORDER})
    mesh = load_mesh(tmp_path, environment="cluster")
    told: list[str] = []
    with Registry(mesh.environment.registry_config()) as registry:
        drain = Drain(mesh, shop.product, registry, shop.catalog, told.append)
        with pytest.raises(ProductStopped) as refused:
            drain._waiting(Held("held: headrace replay is under way"))
        assert "run the replay again" in str(refused.value.hint)
        drain._waiting(Unavailable("the registry does not answer", where="it"))
    assert told == ["waiting: it: the registry does not answer"]
