"""Where a subscriber begins in a partition: the group's position, the table's ledger and the log's bounds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from headrace.schemas.errors import ProductStopped, UserError
from headrace.streams.portions import Span

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from headrace.schemas.product import Product
    from headrace.streams.admin import Watermarks
    from headrace.streams.ledger import Ledger


class Start(StrEnum):
    """Where a subscriber begins in a partition for which its group has no position yet.

    ======== ===================================================================================================
    earliest the topic's first event that Kafka still has
    latest   behind the topic's last event
    history  the product's table from its first row, then the topic from exactly where the table ends
    ======== ===================================================================================================
    """

    EARLIEST = "earliest"
    LATEST = "latest"
    HISTORY = "history"


# A time is aware of its zone; a mapping gives an offset by partition.
Beginning: TypeAlias = "Start | dt.datetime | Mapping[int, int]"


@dataclass(frozen=True, slots=True)
class Begin:
    """Where to begin in a partition.

    Attributes:
        position: the topic's offset to read from.
        history: rows of the table to hand out before, if any.
    """

    position: int
    history: Span | None = None


@dataclass(frozen=True, slots=True)
class Seeker:
    """Decides where to begin.

    Attributes:
        product: the product.
        group: the consumer group; None: none.
    """

    product: Product
    group: str | None

    def topic(self, partition: int, committed: int | None, marks: Watermarks, start: int) -> Begin:
        """Return the beginning of a partition that is read from the topic alone.

        Args:
            partition: the partition.
            committed: the group's position; None: it has none.
            marks: the log's bounds.
            start: where to begin without a position.

        Raises:
            UserError: if the log does not have the group's position.
        """
        position = start if committed is None else committed
        self._held(partition, position, marks, 'start="history" reads them from the product\'s table')
        return Begin(position)

    def history(self, partition: int, committed: int | None, marks: Watermarks, ledger: Ledger | None) -> Begin:
        """Return the beginning of a partition that is read from the table first.

        Args:
            partition: the partition.
            committed: the group's position; None: it has none.
            marks: the log's bounds.
            ledger: what the table holds of the topic; None: nothing.

        Raises:
            UserError: if neither the table nor the log has the group's position.
        """
        if ledger is None:
            begun = marks.low if committed is None else committed
            history = None
        else:
            first, begun = committed or 0, ledger.next(partition)
            history = Span(first, begun) if first < begun else None
            begun = max(first, begun)
        self._held(partition, begun, marks, "the table does not hold them either: produce them again, or begin anew")
        return Begin(begun, history)

    def _held(self, partition: int, position: int, marks: Watermarks, hint: str) -> None:
        reader = f"group {self.group}" if self.group else "this subscriber"
        if position < marks.low:
            raise UserError(
                f"Kafka has deleted offsets {position} to {marks.low - 1} of partition {partition} "
                f"before {reader} read them",
                where=f"topic {self.product.topic}",
                hint=hint,
            )
        if position > marks.end:
            raise UserError(
                f"the position {position} of {reader} in partition {partition} lies behind the topic's end {marks.end}",
                where=f"topic {self.product.topic}",
                hint="the topic was made anew or cut off: begin anew with another group",
            )

    def same_topic(self, ledger: Ledger, topic_id: str) -> None:
        """Check that the table follows this very topic, and never followed another.

        Raises:
            ProductStopped: if the topic was made anew.
        """
        if ledger.generation > 1:
            raise ProductStopped(
                "the topic was made anew once: the table holds rows of one before it, whose offsets are no positions",
                where=f"topic {self.product.topic}",
                hint="start without history, or query the table",
            )
        if ledger.topic_id != topic_id:
            raise ProductStopped(
                f"the topic was made anew: the table follows the topic {ledger.topic_id}, Kafka has {topic_id}",
                where=f"topic {self.product.topic}",
                hint="offsets of the two must not be mixed: the product's owner has to decide; start without history",
            )
