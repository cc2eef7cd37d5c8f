"""What a reader of a topic is: three protocols that all behind it is written against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from headrace.schemas.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.streams.frames import Frame


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought.

    Attributes:
        frames: messages, in the order of their offsets within each partition and schema id.
        ends: partitions whose end was reached, with the position behind the last record, control records included.
        trouble: why nothing came, if the broker was out of reach meanwhile. The reader goes on by itself.
    """

    frames: Sequence[Frame] = ()
    ends: Mapping[int, int] = field(default_factory=dict)
    trouble: Unavailable | None = None


class PollMissed(Unavailable):
    """Polls were further apart than ``max.poll.interval.ms``: the group has given this reader's partitions away."""


class Rebalance(Protocol):
    """What a reader tells when its partitions change. Called from :meth:`Reader.poll`, never once it is closed."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return the position each new partition starts at. What is raised here leaves ``poll``."""
        ...

    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        """Give partitions up. ``lost``: they may belong to another worker already, so nothing can be finished."""
        ...


class Reader(Protocol):
    """Reads a topic's partitions. Reads are read_committed; a reader never stores positions by itself."""

    def poll(self, timeout_s: float) -> Polled:
        """Wait up to ``timeout_s`` for messages. Must be called more often than ``max.poll.interval.ms``.

        Raises:
            PollMissed: it was not; the reader must be closed and opened anew.
            Unavailable: likewise.
            UserError: the group's other members share partitions out in another way.
        """
        ...

    def pause(self) -> None:
        """Bring no messages until :meth:`resume`; polls keep the membership alive."""
        ...

    def resume(self) -> None:
        """Bring messages again."""
        ...

    def announce(self, positions: Mapping[int, int]) -> None:
        """Tell the group's offsets, without waiting for it. Failures are ignored."""
        ...

    def close(self) -> None:
        """Leave the group. Returns within seconds, whatever the broker does. No `Rebalance` is told of it."""
        ...


class ReaderBefore:
    """A reader before another one: it hands on what it is told. Subclasses say what becomes of what was polled.

    Args:
        reader: the other one.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def pause(self) -> None:
        """See :meth:`Reader.pause`."""
        self._reader.pause()

    def resume(self) -> None:
        """See :meth:`Reader.resume`."""
        self._reader.resume()

    def announce(self, positions: Mapping[int, int]) -> None:
        """See :meth:`Reader.announce`."""
        self._reader.announce(positions)

    def close(self) -> None:
        """See :meth:`Reader.close`."""
        self._reader.close()


class Member(Reader, Protocol):
    """A reader whose positions are its group's offsets. Both methods may be called from within a `Rebalance`."""

    def committed(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return the group's offsets, of this reader's partitions or of others; those without one are left out.

        Raises:
            Unavailable: if the broker does not answer.
        """
        ...

    def commit(self, positions: Mapping[int, int]) -> None:
        """Commit the group's offsets and wait until the broker has them.

        Raises:
            Unavailable: if the broker does not answer within seconds, or the group is just being rebalanced.
        """
        ...
