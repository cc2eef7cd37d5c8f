"""Reading a product's dead letters back, a portion at a time: all that the topic holds now, repeats included."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace.schemas.errors import Unavailable
from headrace.sinks.dead_letters.message import kept_letter
from headrace.streams.assigned import AssignedReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headrace.schemas.product import Product
    from headrace.sinks.dead_letters.message import Kept
    from headrace.streams.admin import Admin
    from headrace.streams.frames import Frame

_POLL_S = 0.5
# A broker that restarts is back within this; one that is gone should be told of before a person gives up.
_PATIENCE_S = 30.0


def read_letters(config: Mapping[str, str], admin: Admin, product: Product) -> Iterator[Sequence[Kept]]:
    """Yield the product's dead letters in portions of at most some 64 MiB or 65,000, up to the end that it has now.

    Letters are in the order of their topic's partitions; what is in the topic and is no letter is left out.

    Raises:
        NotApplied: if the dead-letter topic does not exist.
        Unavailable: if the broker does not answer, or has deleted letters while they were read.
        SettingsError: if the broker refuses the credentials.
        UserError: if a right is missing.
    """
    topic = admin.topic(product.dead_letter_topic)
    bounds = {p: mark for p, mark in admin.watermarks(topic).items() if mark.low < mark.end}
    ends = {partition: mark.end for partition, mark in bounds.items()}
    if not ends:
        return
    start = _Start({partition: mark.low for partition, mark in bounds.items()})
    with AssignedReader(config, topic.name, tuple(ends), start) as reader:
        heard_s = time.monotonic()
        while ends:
            polled = reader.poll(_POLL_S)
            if polled.frames or polled.ends:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > _PATIENCE_S:
                raise polled.trouble or Unavailable(
                    f"the broker sent nothing for {_PATIENCE_S:.0f} s", where=topic.name, hint="run it again"
                )
            found = [kept for frame in polled.frames for kept in _letters(frame)]
            for partition, position in _reached(polled.frames, polled.ends):
                if position >= ends.get(partition, position + 1):
                    del ends[partition]
            if found:
                yield found


def _letters(frame: Frame) -> Iterator[Kept]:
    if frame.headers is None:
        return
    for row in range(len(frame)):
        key, value = frame.keys[row].as_py(), frame.values[row].as_py()
        kept = kept_letter(frame.headers_of(row), key, value, int(frame.timestamps_ms[row]))
        if kept is not None:
            yield kept


def _reached(frames: Sequence[Frame], ends: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Yield how far partitions have been read: position behind the last message, or of the partition's end."""
    for frame in frames:
        yield frame.partition, int(frame.offsets[-1]) + 1
    yield from ends.items()


class _Start:
    """Starts each partition where its log began when the reading did."""

    def __init__(self, positions: Mapping[int, int]) -> None:
        self._positions = positions

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """See :meth:`headrace.streams.reader.Rebalance.assigned`."""
        return {partition: self._positions[partition] for partition in partitions}

    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        """Nobody revokes what no group has given."""
