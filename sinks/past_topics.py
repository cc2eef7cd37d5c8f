"""Which topic each generation of a table was, and how far the table is with it: nothing more comes of those before.

A table that goes on with a topic that was made anew notes the id of the one before in its properties, which no expiry
takes away; its snapshots' ledgers tell likewise, while they are there. Pure.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from headrace.schemas.errors import DamagedLedger
from headrace.streams.ledger import SUMMARY_KEY, Ledger, Position

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pyiceberg.table.metadata import TableMetadata

__all__ = ["PAST_TOPIC", "as_followed", "past_topics"]

# With a generation behind it, the property of a table that says which topic that was.
PAST_TOPIC = "headrace.topic."
_BEHIND_ALL = 2**63 - 1


def past_topics(metadata: TableMetadata) -> Mapping[int, str]:
    """Return the ids of the topics that the table has followed, by generation; what is told in two ways is left out.

    Raises:
        ProductStopped: if a newer headrace wrote a ledger.
    """
    found: dict[int, set[str]] = {}
    for generation, topic_id in (*_noted(metadata), *_told(metadata)):
        found.setdefault(generation, set()).add(topic_id)
    return {generation: ids.pop() for generation, ids in found.items() if len(ids) == 1}


def as_followed(metadata: TableMetadata, ledger: Ledger, topic_id: str, partitions: Collection[int]) -> Ledger | None:
    """Return the ledger of a topic: the table's own, or of an earlier topic one that has read all of these partitions.

    None: the table has never followed that topic, or nobody can tell any more.

    Raises:
        ProductStopped: as `past_topics`.
    """
    if topic_id == ledger.topic_id:
        return ledger
    earlier = (
        generation
        for generation, known in past_topics(metadata).items()
        if known == topic_id and generation < ledger.generation
    )
    generation = max(earlier, default=None)
    if generation is None:
        return None
    return Ledger(topic_id, generation, dict.fromkeys(partitions, Position(_BEHIND_ALL)), {}, {})


def _noted(metadata: TableMetadata) -> Iterator[tuple[int, str]]:
    for name, topic_id in metadata.properties.items():
        generation = name.removeprefix(PAST_TOPIC)
        if generation != name and generation.isascii() and generation.isdecimal():
            yield int(generation), topic_id


def _told(metadata: TableMetadata) -> Iterator[tuple[int, str]]:
    for snapshot in metadata.snapshots:
        text = snapshot.summary.additional_properties.get(SUMMARY_KEY) if snapshot.summary else None
        if text is not None:
            with suppress(DamagedLedger):
                told = Ledger.from_json(text)
                yield told.generation, told.topic_id
