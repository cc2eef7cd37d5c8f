"""How far a worker's partitions have come in time: everything that was written until then is in the table. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headrace.streams.ledger import Ledger

__all__ = ["Watermark"]


class Watermark:
    """Each partition's mark, and the oldest of them.

    A partition's mark is the newest timestamp among its committed events. Once it was read to its end and all of that
    is committed, it is the present: nobody waits for a partition in which nothing happens.

    Times are Kafka's timestamps, in seconds since 1970 UTC. A partition is in the order of its offsets: an event whose
    producer had an older clock, or was late, may still come behind the mark. So may, behind a mark that is the present,
    what is just on its way.
    """

    def __init__(self) -> None:
        self._marks: dict[int, float] = {}
        self._ends: dict[int, int] = {}

    def landed(self, newest: Mapping[int, float]) -> None:
        """Take the newest timestamps of a commit, by partition. A mark never goes back."""
        for partition, newest_s in newest.items():
            self._marks[partition] = max(newest_s, self._marks.get(partition, newest_s))

    def ended(self, ends: Mapping[int, int]) -> None:
        """Take ends of partitions that were reached, with the positions behind them."""
        self._ends.update(ends)

    def looked(self, positions: Mapping[int, int], ledger: Ledger, now_s: float) -> None:
        """Note that the broker has brought nothing more until now.

        Args:
            positions: how far the worker's partitions have been read.
            ledger: how far they are committed.
            now_s: seconds since 1970 UTC.
        """
        for partition, position in positions.items():
            if position == self._ends.get(partition) == ledger.next(partition):
                self._marks[partition] = max(now_s, self._marks.get(partition, now_s))

    def revoked(self, partitions: Iterable[int]) -> None:
        """Forget partitions: others go on with them."""
        for partition in partitions:
            self._marks.pop(partition, None)
            self._ends.pop(partition, None)

    def of(self, partitions: Iterable[int]) -> float | None:
        """Return the oldest mark of these partitions; None: there is none of them, or one has no mark yet."""
        marks = [self._marks.get(partition) for partition in partitions]
        known = [mark for mark in marks if mark is not None]
        return min(known) if known and len(known) == len(marks) else None
