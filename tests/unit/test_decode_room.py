"""Values are decoded from a file in memory: where that has no room, nothing is said of the values."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import fastavro
import pyarrow as pa
import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import Unavailable
from headrace.streams.decode import Decoder

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = {"type": "record", "name": "Event", "fields": [{"name": "text", "type": "string"}]}
ROOM_BYTES = 64 << 10


@contextmanager
def room(size_bytes: int) -> Iterator[None]:
    """Let no file of this process become larger, while the block lasts."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def values(*sizes: int) -> pa.BinaryArray:
    def one(size: int) -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, SCHEMA, {"text": "x" * size})
        return struct.pack(">bI", 0, 1) + body.getvalue()

    return pa.array([one(size) for size in sizes], pa.binary())


@pytest.fixture(params=["memory", "disk"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    if request.param == "disk":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    return Decoder(AvroSchema.parse(json.dumps(SCHEMA)), 1)


def test_a_value_that_finds_no_room_is_not_refused_and_can_be_decoded_again(decoder: Decoder) -> None:
    given = values(10, 2 * ROOM_BYTES, 10)
    with room(ROOM_BYTES), pytest.raises(Unavailable, match="File too large") as raised:
        decoder.decode(given)
    assert raised.value.hint
    decoded = decoder.decode(given)
    assert (len(decoded.events), decoded.refused) == (3, ())


def test_a_block_that_finds_no_room_is_decoded_in_parts(decoder: Decoder) -> None:
    given = values(*[ROOM_BYTES // 10] * 50)
    with room(ROOM_BYTES):
        decoded = decoder.decode(given)
    assert (len(decoded.events), decoded.refused) == (50, ())
