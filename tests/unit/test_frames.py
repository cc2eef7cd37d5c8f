"""Messages cut into frames, against a loop over single messages."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.streams import frames
from headrace.streams.frames import Frame, Messages, frames_of, schema_ids

EXAMPLES = settings(max_examples=150, deadline=None)

Single = tuple[int, int, bytes | None, bytes | None]


def header(schema_id: int, magic: int = 0) -> bytes:
    return struct.pack(">bI", magic, schema_id)


BODIES = st.binary(max_size=6)
VALUES = st.one_of(
    st.none(),
    st.binary(max_size=6),
    st.builds(lambda i, body: header(i) + body, st.sampled_from([0, 1, 256, 2**31, 2**32 - 1]), BODIES),
    st.builds(lambda i, body: header(i, 1) + body, st.integers(0, 2), BODIES),
)
# Partition, gap before the offset, key, value.
MESSAGES = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.none() | BODIES, VALUES), max_size=25)


def arrived(drawn: list[Single]) -> list[tuple[int, int, int, bytes | None, bytes | None]]:
    """Partition, offset, timestamp, key, value, offsets ascending within each partition."""
    offsets = {0: 0, 1: 100, 2: 2**40}
    found = []
    for place, (partition, gap, key, value) in enumerate(drawn):
        offsets[partition] += gap
        found.append((partition, offsets[partition], 1_000 - place, key, value))
    return found


def messages_of(found: list[tuple[int, int, int, bytes | None, bytes | None]], junk: int = 0) -> Messages:
    """Columns of messages; the binary ones are slices of larger arrays if there is junk around them."""

    def sliced(values: list[bytes | None]) -> pa.BinaryArray:
        around: list[bytes | None] = [b"\0\0\0\0\x09junk"] * junk
        return pa.array([*around, *values, *around], pa.binary()).slice(junk, len(values))

    return Messages(
        partitions=np.array([m[0] for m in found], np.int32),
        offsets=np.array([m[1] for m in found], np.int64),
        timestamps_ms=np.array([m[2] for m in found], np.int64),
        keys=sliced([m[3] for m in found]),
        values=sliced([m[4] for m in found]),
    )


def naive_id(value: bytes | None) -> int | None:
    if value is None or len(value) < 5 or value[0] != 0:
        return None
    return int.from_bytes(value[1:5], "big")


def naive(found: list[tuple[int, int, int, bytes | None, bytes | None]], limit: int) -> list[dict[str, Any]]:
    """One message after another: each goes to the last frame of its partition and schema id, unless that is full."""
    cut: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for partition, offset, stamp, key, value in found:
        schema_id = naive_id(value)
        frames = cut.setdefault((partition, -1 if schema_id is None else schema_id), [])
        if not frames or len(frames[-1]["rows"]) == limit:
            frames.append({"partition": partition, "schema_id": schema_id, "rows": []})
        frames[-1]["rows"].append((offset, stamp, key, value))
    return [frame for _, frames in sorted(cut.items()) for frame in frames]


def shown(frame: Frame) -> dict[str, Any]:
    columns = (frame.offsets.tolist(), frame.timestamps_ms.tolist(), frame.keys.to_pylist(), frame.values.to_pylist())
    return {
        "partition": frame.partition,
        "schema_id": frame.schema_id,
        "rows": list(zip(*columns, strict=True)),
    }


@EXAMPLES
@given(MESSAGES, st.sampled_from([1, 2, 65_536]), st.integers(0, 2))
def test_frames_are_what_a_loop_over_messages_cuts(drawn: list[Single], limit: int, junk: int) -> None:
    found = arrived(drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "MAX_BLOCK_ROWS", limit)
        cut = list(frames_of(messages_of(found, junk)))
    assert [shown(frame) for frame in cut] == naive(found, limit)
    for frame in cut:
        assert len(frame) == len(frame.offsets) > 0
        assert frame.nbytes >= sum(len(v or b"") + len(k or b"") for _, _, k, v in shown(frame)["rows"])


@EXAMPLES
@given(st.lists(VALUES, max_size=10), st.integers(0, 3))
def test_the_schema_id_of_each_value(values: list[bytes | None], junk: int) -> None:
    around = [header(9)] * junk
    array = pa.array([*around, *values, *around], pa.binary()).slice(junk, len(values))
    expected = [-1 if (found := naive_id(value)) is None else found for value in values]
    assert schema_ids(array).tolist() == expected


def test_versions_that_alternate_make_two_frames_a_partition() -> None:
    """While a producer is rolled out: a frame a message would cost a thousand times more."""
    found: list[tuple[int, int, int, bytes | None, bytes | None]] = [
        (place % 4 // 2, place, 0, None, header(1 + place % 2)) for place in range(10_000)
    ]
    cut = list(frames_of(messages_of(found)))
    assert [(f.partition, f.schema_id, len(f)) for f in cut] == [(p, i, 2_500) for p in (0, 1) for i in (1, 2)]
    assert all((np.diff(f.offsets) > 0).all() for f in cut)


def test_no_messages_make_no_frames() -> None:
    assert list(frames_of(messages_of([]))) == []


def test_a_frame_is_never_larger_than_a_block() -> None:
    count = 65_536 * 2 + 1
    values = pa.array([header(1)] * count, pa.binary())
    zeros = np.zeros(count, np.int64)
    cut = list(frames_of(Messages(np.zeros(count, np.int32), np.arange(count), zeros, values, values)))
    assert [len(frame) for frame in cut] == [65_536, 65_536, 1]
    assert [int(frame.offsets[0]) for frame in cut] == [0, 65_536, 131_072]


@EXAMPLES
@given(MESSAGES, MESSAGES, st.sets(st.integers(0, 2)))
def test_runs_of_messages_are_joined_and_partitions_left_out(
    first: list[Single], second: list[Single], out: set[int]
) -> None:
    found = arrived(first + second)
    joined = Messages.joined([messages_of(found[: len(first)], 1), messages_of(found[len(first) :])])
    kept = [message for message in found if message[0] not in out]
    assert [shown(f) for f in frames_of(joined.without(out))] == naive(kept, 65_536)


@EXAMPLES
@given(MESSAGES, MESSAGES, st.sets(st.integers(0, 2)), st.booleans())
def test_headers_stay_with_their_messages(first: list[Single], second: list[Single], out: set[int], both: bool) -> None:
    found = arrived(first + second)
    parts = [messages_of(found[: len(first)]), messages_of(found[len(first) :])]
    # Each message's header is its own offset; a run without headers has null for each of its messages.
    headed = [
        replace(part, headers=pa.array(map(str.encode, map(str, part.offsets.tolist())), pa.binary()))
        if both or place == 0
        else part
        for place, part in enumerate(parts)
    ]
    own = {str(offset) for part in headed if part.headers is not None for offset in part.offsets.tolist()}
    for frame in frames_of(Messages.joined(headed).without(out)):
        assert frame.headers is not None
        texts = [text.encode() if text in own else None for text in map(str, frame.offsets.tolist())]
        assert frame.headers.to_pylist() == texts
    assert all(frame.headers is None for frame in frames_of(*parts))
