"""The open batch: what it covers and when it is due."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.errors import Bug
from headrace.sinks.batch import Batch, Chunk, Limits
from headrace.streams.frames import Frame, packed_headers
from headrace.streams.ledger import Range

NONE_YET: Future[Chunk] = Future()


def frame(partition: int, *offsets: int, schema_id: int | None = 1) -> Frame:
    keys = pa.array([b"k"] * len(offsets), pa.binary())
    return Frame(partition, schema_id, np.array(offsets), np.zeros(len(offsets), np.int64), keys, keys)


def chunk(partition: int, *offsets: int) -> Chunk:
    of = frame(partition, *offsets) if offsets else frame(partition, 0)
    size = len(offsets)
    return Chunk(partition, 1, None, np.array(offsets, np.int64), of.timestamps_ms[:size], of.keys[:size])


def test_nothing_is_never_due() -> None:
    batch = Batch({0: 5})
    assert not batch
    assert not batch.due(Limits(age_s=0, bytes=0, rows=0), 1e9)
    batch.end_of_partition(0, 5, 1.0)
    batch.end_of_partition(0, 3, 1.0)
    assert not batch
    assert batch.ranges([]) == {}


def test_age_counts_from_the_first_message() -> None:
    batch = Batch({0: 0})
    batch.add(frame(0, 1), NONE_YET, 100.0)
    batch.add(frame(0, 2), NONE_YET, 109.0)
    limits = Limits(age_s=10)
    assert batch
    assert not batch.due(limits, 109.9)
    assert batch.due(limits, 110.0)


def test_after_a_scattered_batch_the_next_one_waits_for_as_long_as_it_may() -> None:
    limits = Limits(age_s=1, scattered_age_s=30)
    assert limits.after(17, 17 * (1 << 20) - 1).age_s == 30
    # Few files, or files that are large enough, or no file at all.
    for files, size_bytes in ((16, 16_000), (17, 17 * (1 << 20)), (0, 0)):
        assert limits.after(files, size_bytes) == limits
    # The contract's latency may be the shorter one.
    assert Limits(age_s=60, scattered_age_s=30).after(100, 1_000).age_s == 60
    # What bounds memory stays.
    assert limits.after(100, 1_000).bytes == limits.bytes
    assert limits.after(100, 1_000).rows == limits.rows


def test_headers_make_a_batch_due_and_are_no_bytes_of_its_messages() -> None:
    bare = frame(0, 0, 1)
    headed = replace(bare, headers=packed_headers([[("trace", b"x" * 500)], None]))
    assert headed.memory_bytes > bare.memory_bytes + 500
    batch = Batch({0: 0})
    batch.add(headed, NONE_YET, 0.0)
    assert batch.bytes == bare.nbytes
    assert batch.due(Limits(bytes=bare.nbytes + 500), 0.0)


def test_rows_and_bytes_make_a_batch_due() -> None:
    batch = Batch({0: 0})
    batch.add(frame(0, 0, 1, 2), NONE_YET, 0.0)
    assert (batch.rows, batch.bytes) == (3, frame(0, 0, 1, 2).nbytes)
    assert batch.due(Limits(rows=3), 0.0)
    assert not batch.due(Limits(rows=4), 0.0)
    assert batch.due(Limits(bytes=batch.bytes), 0.0)
    assert not batch.due(Limits(bytes=batch.bytes + 1), 0.0)


def test_an_end_of_partition_alone_makes_a_batch() -> None:
    """Control records behind the last row move the position, and a position moves only by a commit."""
    batch = Batch({0: 5, 1: 0})
    batch.end_of_partition(0, 7, 3.0)
    assert batch
    assert batch.begun_s == 3.0
    assert batch.ranges([]) == {0: Range(5, 7, None)}
    assert batch.next().positions == {0: 7, 1: 0}


def test_ranges_end_behind_the_last_message_and_name_the_last_row() -> None:
    batch = Batch({0: 10, 1: 0, 2: 4})
    batch.add(frame(0, 12, 15), NONE_YET, 0.0)
    batch.add(frame(1, 0), NONE_YET, 0.0)
    batch.end_of_partition(0, 20, 0.0)
    # The message at 15 was refused, the only one of partition 1 too.
    assert batch.ranges([chunk(0, 12), chunk(1)]) == {0: Range(10, 20, 12), 1: Range(0, 1, None)}
    following = batch.next()
    assert following.positions == {0: 20, 1: 1, 2: 4}
    assert not following


@pytest.mark.parametrize(("positions", "message"), [({0: 5}, "went back"), ({1: 0}, "not this worker's")])
def test_what_was_read_before_or_is_anothers_is_a_bug(positions: dict[int, int], message: str) -> None:
    batch = Batch(dict(positions))
    with pytest.raises(Bug, match=message):
        batch.add(frame(0, 4), NONE_YET, 0.0)
    assert batch.positions == positions
    assert not batch


def test_schema_ids_may_alternate_within_a_partition() -> None:
    batch = Batch({0: 4})
    batch.add(frame(0, 4, 6, 9, schema_id=None), NONE_YET, 0.0)
    batch.add(frame(0, 5, 7, schema_id=1), NONE_YET, 0.0)
    batch.add(frame(0, 8, schema_id=2), NONE_YET, 0.0)
    assert batch.positions == {0: 10}
    assert batch.ranges([chunk(0), chunk(0, 5, 7), chunk(0, 8)]) == {0: Range(4, 10, 8)}
    assert batch.ranges([chunk(0, 8), chunk(0, 5, 7)]) == {0: Range(4, 10, 8)}
    batch.add(frame(0, 10, 12, schema_id=1), NONE_YET, 0.0)
    assert batch.next().positions == {0: 13}


@pytest.mark.parametrize(("again", "schema_id"), [(4, None), (9, None), (7, 1), (3, 2)])
def test_messages_that_come_again_are_a_bug(again: int, schema_id: int | None) -> None:
    batch = Batch({0: 4})
    batch.add(frame(0, 4, 6, 9, schema_id=None), NONE_YET, 0.0)
    batch.add(frame(0, 5, 7, schema_id=1), NONE_YET, 0.0)
    with pytest.raises(Bug, match="went back"):
        batch.add(frame(0, again, schema_id=schema_id), NONE_YET, 0.0)
    with pytest.raises(Bug, match="went back"):
        batch.next().add(frame(0, again, schema_id=schema_id), NONE_YET, 0.0)
    assert batch.positions == {0: 10}


STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 3), st.booleans()), max_size=20)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_ranges_of_batches_follow_one_another_without_hole_or_overlap(steps: list[tuple[int, int, int, bool]]) -> None:
    batch = Batch({0: 0, 1: 0, 2: 0})
    reached = {0: 0, 1: 0, 2: 0}
    for partition, gap, size, cut in steps:
        first = batch.positions[partition] + gap
        batch.add(frame(partition, *range(first, first + size)), NONE_YET, 0.0)
        if cut:
            for place, covered in batch.ranges([]).items():
                assert covered.start == reached[place]
                reached[place] = covered.end
            batch = batch.next()
            assert batch.positions == reached
