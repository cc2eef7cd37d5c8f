"""A glance at the table while a session has nothing to land: somebody may have taken the table back meanwhile.

A batch finds that out when it lands. A topic that rests has none for hours, and what its table has lost would not be
read again until then. Likewise if the topic was made anew and has as many events as before: the client goes on at its
end, as if nothing had happened. And for a topic that is gone the client waits as it does for the next event. The glance
is taken in the pipeline's thread, so that nobody waits for a catalog.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import HeadraceError, NotApplied
from headrace.sinks.commit import check_fence
from headrace.sinks.stops import topic_made_anew
from headrace.streams.history import read_ledger
from headrace.streams.ledger import Ledger, Range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from headrace.sinks.landing import Desk

__all__ = ["Glance", "Seen"]

# The ledger, and the id of the topic that Kafka has, or that it has none. None: there is no ledger, or what is wrong is
# told when the next batch lands.
Seen: TypeAlias = "tuple[Ledger, str | NotApplied] | None"

# How often a session that rests looks. Reading a table's metadata takes some 10 ms.
GLANCE_S = 30.0


class Glance:
    """Looks whether table and topic still are what a session believes them to be. Not for several threads.

    Args:
        desk: the catalog, the product and the branch.
        submit: has something done in the pipeline's thread.
    """

    def __init__(self, desk: Desk, submit: Callable[[Callable[[], Seen]], Future[Seen]]) -> None:
        self._desk = desk
        self._submit = submit
        self._next_s = time.monotonic() + GLANCE_S
        self._looking: tuple[Mapping[int, int], Future[Seen]] | None = None
        self._missed = False

    def at(self, positions: Mapping[int, int], base: Ledger) -> None:
        """Look, now and then, while nothing is read or lands.

        Args:
            positions: the session's positions: all before them has landed.
            base: the ledger that the session began with.

        Raises:
            Stale: the table is elsewhere: a new session starts from its ledger.
            ProductStopped: the topic was made anew.
            NotApplied: the topic is gone: two looks have said so.
        """
        if self._looking is None:
            if time.monotonic() >= self._next_s:
                self._looking = dict(positions), self._submit(self._look)
            return
        seen, look = self._looking
        if not look.done():
            return
        self._looking, self._next_s = None, time.monotonic() + GLANCE_S
        found = look.result()
        # Whatever has landed or was assigned since, the look may not have seen.
        if found is None or seen != positions:
            return
        (ledger, topic), product = found, self._desk.product
        check_fence(ledger, base, {p: Range(at, at) for p, at in seen.items()}, where=str(product.name))
        if isinstance(topic, NotApplied):
            # A broker that has just come up may not know a topic.
            if self._missed:
                raise topic
            self._missed = True
            return
        self._missed = False
        if ledger.topic_id != topic:
            raise topic_made_anew(product, ledger.topic_id, topic)

    def _look(self) -> Seen:
        product = self._desk.product
        try:
            ledger = read_ledger(load_table(self._desk.catalog, product), product, self._desk.branch)
            return None if ledger is None else (ledger, self._topic())
        except HeadraceError:
            return None

    def _topic(self) -> str | NotApplied:
        try:
            return self._desk.topic_id()
        except NotApplied as gone:
            return gone
