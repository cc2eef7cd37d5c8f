"""Dead letters as messages: what a letter's headers say, and what is read of them again. Pure.

A letter has the original's key and value, then the original's headers in their order, and behind them headrace's own.
An original may have headers of such names itself: headrace's come last, so they win wherever headers are read by name,
and the last reason begins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.sinks.batch import Letter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.streams.ledger import Ledger

_PREFIX = "headrace."
_REASON = f"{_PREFIX}reason"
# What numbers a letter may say of itself, beside those that no topic has: anybody may write to its topic.
_INT, _LONG, _SCHEMA_ID = 2**31 - 1, 2**63 - 1, 2**32 - 1

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Kept:
    """A letter as the dead-letter topic keeps it.

    Attributes:
        letter: the letter.
        topic_id: Kafka's UUID of the topic that it came from.
        generation: which of the table's topics that was; None: an earlier headrace wrote the letter, and did not say.
        timed: whether the letter says its original's timestamp; an earlier headrace's does not.
        refused_ms: when it was written, milliseconds since 1970 UTC.
    """

    letter: Letter
    topic_id: str
    generation: int | None
    timed: bool
    refused_ms: int

    def of(self, ledger: Ledger) -> bool:
        """Tell whether it came from the topic that a ledger follows, in its generation."""
        return self.topic_id == ledger.topic_id and self.generation in {None, ledger.generation}


def headers_of(letter: Letter, topic: str, ledger: Ledger) -> list[tuple[str, str | bytes | None]]:
    """Return the headers of a letter's message.

    Args:
        letter: the letter.
        topic: the name of the topic that it came from.
        ledger: the ledger that its batch began with: the topic's id and generation.
    """
    said: dict[str, object] = {
        "reason": letter.reason,
        "topic": topic,
        "topic-id": ledger.topic_id,
        "generation": ledger.generation,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp-ms": letter.timestamp_ms,
    }
    if letter.schema_id is not None:
        said["schema-id"] = letter.schema_id
    return [*letter.headers, *((f"{_PREFIX}{name}", str(value)) for name, value in said.items())]


def kept_letter(headers: Sequence[Header], key: bytes | None, value: bytes | None, refused_ms: int) -> Kept | None:
    """Return a message of a dead-letter topic as the letter that it is; None: it is none of headrace's."""
    begin = next((place for place in reversed(range(len(headers))) if headers[place][0] == _REASON), None)
    if begin is None:
        return None
    own = {
        name.removeprefix(_PREFIX): text.decode("utf-8", "replace")
        for name, text in headers[begin:]
        if name.startswith(_PREFIX) and text is not None
    }
    try:
        # Without these nobody knows which message it was; an earlier headrace wrote no more.
        reason, topic_id = own["reason"], own["topic-id"]
        partition, offset = _whole(own["partition"], _INT), _whole(own["offset"], _LONG)
        generation = _whole(own["generation"], _INT) if "generation" in own else None
        schema_id = _whole(own["schema-id"], _SCHEMA_ID) if "schema-id" in own else None
        timestamp_ms = _whole(own["timestamp-ms"], _LONG, least=-_LONG) if "timestamp-ms" in own else -1
    except (KeyError, ValueError):
        return None
    letter = Letter(partition, offset, schema_id, reason, key, value, timestamp_ms, tuple(headers[:begin]))
    return Kept(letter, topic_id, generation, "timestamp-ms" in own, refused_ms)


def _whole(text: str, most: int, least: int = 0) -> int:
    number = int(text)
    if not least <= number <= most:
        raise ValueError(text)
    return number
