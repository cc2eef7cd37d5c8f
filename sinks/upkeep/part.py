"""What upkeep is to a session: it is told each commit and poll; what it commits is done between two landings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from concurrent.futures import Future

    from headrace.sinks.landing import Landed

Result = TypeVar("Result")


class Submit(Protocol):
    """Hands in a job that is done between two landings, by the thread that lands; it must take milliseconds."""

    def __call__(self, job: Callable[[], Result], /) -> Future[Result]: ...  # noqa: D102


class Upkeep(Protocol):
    """What keeps a table quick while a session lands into it. No method may block or raise."""

    def landed(self, landed: Landed, partitions: Collection[int]) -> None:
        """A batch is in the table; ``partitions`` are the session's own now."""
        ...

    def polled(self, partitions: Collection[int]) -> None:
        """The session has polled, some ten times a second, whether anything lands or not."""
        ...

    def close(self) -> None:
        """The session ends."""
        ...


class NoUpkeep:
    """The table is left as it is."""

    def landed(self, landed: Landed, partitions: Collection[int]) -> None:
        """See :meth:`Upkeep.landed`."""

    def polled(self, partitions: Collection[int]) -> None:
        """See :meth:`Upkeep.polled`."""

    def close(self) -> None:
        """See :meth:`Upkeep.close`."""


def no_upkeep(_submit: Submit, /) -> Upkeep:
    """Return an upkeep that does nothing."""
    return NoUpkeep()
