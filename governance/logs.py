"""The auditor's own way to read a topic: it assigns partitions, joins no group, commits nothing, trusts no position."""

from __future__ import annotations

from array import array
from collections import defaultdict
from operator import itemgetter
from typing import TYPE_CHECKING, cast

import numpy as np
from confluent_kafka import Message

from headrace.governance.marks import Marks
from headrace.schemas.stamps import holdable
from headrace.streams.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from headrace.governance.marks import Longs
    from headrace.streams.admin import Topic, Watermarks

__all__ = ["GROUP", "marks_of", "read_letters", "read_marks"]

GROUP = "headrace.verify"
# So many events are compared at once: enough for numpy, and 1 MiB.
_PIECE_ROWS = 65_536
_LAST_OFFSET = 2**63 - 1
# A message that was read has an offset; only one that is still to be sent has none.
_OFFSET = cast("Callable[[Message], int]", Message.offset)


def read_marks(config: Mapping[str, str], topic: Topic, bounds: Mapping[int, Watermarks]) -> Mapping[int, Marks]:
    """Read offsets and timestamps of all committed events within the bounds, by partition.

    A timestamp that no table can hold reads -1, as its row's does. Holds 16 bytes an event.

    Raises:
        Unavailable: if the broker does not answer for 30 s, or the log's start moved past a position meanwhile.
        SettingsError: if the broker refuses the credentials.
        UserError: if a right is missing.
    """
    found: defaultdict[int, _Gathered] = defaultdict(_Gathered)
    with Scan(config, topic.name, GROUP) as scan:
        for partition, messages in scan.stretches(bounds):
            found[partition].add(messages)
    return {partition: found[partition].marks() for partition in bounds}


def marks_of(scan: Scan, partition: int, bound: Watermarks) -> Iterator[Marks]:
    """Yield what `read_marks` returns of one partition, piece by piece, in the order of offsets.

    Raises:
        Unavailable, SettingsError, UserError: as `read_marks`.
    """
    gathered = _Gathered()
    for _, messages in scan.stretches({partition: bound}):
        gathered.add(messages)
        if len(gathered.offsets) >= _PIECE_ROWS:
            yield gathered.marks()
            gathered = _Gathered()
    yield gathered.marks()


def read_letters(
    config: Mapping[str, str], letters: Topic, bounds: Mapping[int, Watermarks], topic: Topic
) -> Mapping[int, Longs]:
    """Read the offsets of a topic's dead letters by the partition they came from, repeats included.

    Letters of an earlier topic of the same name, and messages that are no letters, are left out. Holds 8 bytes a
    letter.

    Raises:
        Unavailable, SettingsError, UserError: as `read_marks`.
    """
    found: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))
    with Scan(config, letters.name, GROUP) as scan:
        for _, messages in scan.stretches(bounds):
            for message in messages:
                place = _place(dict(message.headers() or ()), topic.id)
                if place is not None:
                    found[place[0]].append(place[1])
    return {partition: np.frombuffer(offsets, np.int64) for partition, offsets in found.items()}


class _Gathered:
    """Messages of one partition as two columns."""

    def __init__(self) -> None:
        self.offsets: array[int] = array("q")
        self._stamps: array[int] = array("q")

    def add(self, messages: Sequence[Message]) -> None:
        # No line of Python for a message: this is what the proof of a large table waits for.
        self.offsets.extend(map(_OFFSET, messages))
        self._stamps.extend(map(itemgetter(1), map(Message.timestamp, messages)))

    def marks(self) -> Marks:
        offsets, stamps = np.array(self.offsets, np.int64), np.array(self._stamps, np.int64)
        return Marks(offsets, np.where(holdable(stamps), stamps, -1))


def _place(headers: Mapping[str, str | bytes | None], topic_id: str) -> tuple[int, int] | None:
    texts = {name: value.decode("utf-8", "replace") for name, value in headers.items() if isinstance(value, bytes)}
    if texts.get("headrace.topic-id") != topic_id:
        return None
    try:
        partition, offset = int(texts["headrace.partition"]), int(texts["headrace.offset"])
    except (KeyError, ValueError):
        return None
    # Anybody who may write to the topic may write any number.
    return (partition, offset) if 0 <= offset <= _LAST_OFFSET else None
