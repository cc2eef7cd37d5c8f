"""Messages as confluent-kafka hands them over become columns: the only Python that runs for each message."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from confluent_kafka import Message

from headrace.streams.frames import Messages, packed_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.streams.frames import Headers


def columns_of(messages: Sequence[Message]) -> Messages:
    """Return messages, none of them an error, as columns."""
    count = len(messages)
    return Messages(
        partitions=np.fromiter(map(Message.partition, messages), np.int32, count),
        offsets=np.fromiter(map(Message.offset, messages), np.int64, count),
        timestamps_ms=np.fromiter(map(itemgetter(1), map(Message.timestamp, messages)), np.int64, count),
        keys=pa.array(list(map(Message.key, messages)), pa.binary()),
        values=pa.array(list(map(Message.value, messages)), pa.binary()),
        headers=_headers(messages),
    )


def _headers(messages: Sequence[Message]) -> Headers | None:
    """Return the messages' headers, None if none has any.

    The client cannot give a header whose name is not UTF-8: such a message counts as one without headers. It raises
    then, and gives half an object if it is asked again: so each message is asked once, and the rest behind it.
    """
    found: list[Any] = []
    left = map(Message.headers, messages)
    while len(found) < len(messages):
        try:
            found.extend(left)
        except (SystemError, UnicodeDecodeError):
            found.append(None)
    return packed_headers(found)
