"""Reading that takes its time, in a thread of its own, so that whoever waits for it can do something else meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.streams.portions import Portion

Item = TypeVar("Item")

# How long whoever asks for the next item is kept waiting.
WAIT_S = 0.1


def in_thread(items: Iterator[Item]) -> Iterator[Item | None]:
    """Yield items that a thread fetches, and None each time that the next one is not there yet.

    The next item is fetched when it is asked for, never earlier, by one thread at a time; the process ends without
    waiting for it. What fetching raises is raised here.
    """
    while True:
        found: list[Item] = []
        failed: list[BaseException] = []

        def fetch(found: list[Item] = found, failed: list[BaseException] = failed) -> None:
            try:
                found.extend(islice(items, 1))
            except BaseException as error:  # noqa: BLE001 - carried to whoever asks
                failed.append(error)

        thread = Thread(target=fetch, name="read-ahead", daemon=True)
        thread.start()
        thread.join(WAIT_S)
        while thread.is_alive():
            yield None
            thread.join(WAIT_S)
        if failed:
            raise failed[0]
        if not found:
            return
        yield found[0]


@dataclass
class Telling:
    """History that is being handed out.

    Attributes:
        partitions: whose it is; those that are taken away leave it.
        portions: its portions, None while the next one is being read.
        over: whether nothing is left.
    """

    partitions: set[int]
    portions: Iterator[Portion | None]
    over: bool = False

    def take(self) -> Portion | None:
        """Return the next portion, None if it is not there yet or not wanted any more."""
        try:
            portion = next(self.portions) if self.partitions else None
        except StopIteration:
            portion = None
            self.over = True
        self.over = self.over or not self.partitions
        return portion if portion is not None and portion.partition in self.partitions else None
