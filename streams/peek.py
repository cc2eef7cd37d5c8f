"""A look at single events of a topic: which offset and timestamp stand at a position. Joins no group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.streams.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.streams.admin import Topic

_GROUP = "headrace.peek"


def first_events(
    config: Mapping[str, str], topic: Topic, positions: Mapping[int, int]
) -> Mapping[int, tuple[int, int]]:
    """Return offset and timestamp of the first committed event at or behind each position, by partition.

    The timestamp is in milliseconds since 1970 UTC, -1 if the event has none. A partition without any such event is
    left out.

    Args:
        config: the environment's librdkafka properties.
        topic: the topic.
        positions: by partition; not below the log's start.

    Raises:
        Unavailable: if the broker does not answer, or the log's start has moved past a position.
        SettingsError: if the broker refuses the credentials.
        UserError: if a right is missing.
    """
    if not positions:
        return {}
    found: dict[int, tuple[int, int]] = {}
    with Scan(config, topic.name, _GROUP) as scan:
        for partition, messages in scan.onward(positions):
            offset = messages[0].offset()
            if offset is not None:
                found[partition] = offset, messages[0].timestamp()[1]
            # What comes behind is of no interest.
            scan.leave(partition)
    return found
