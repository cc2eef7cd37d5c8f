"""Saying what is waited for while Kafka's client waits by itself: it repeats a commit without an answer."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING

from headrace.schemas.errors import HeadraceError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A transaction of a few events takes some hundredths of a second.
PATIENCE_S = 5.0
_HINT = "it is waited for: look whether the broker is up (embedded: headrace up)"
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0
# Then the cause is told, a stop is heard, and what was published is read anew: no event is lost or doubled by that.
PUBLISH_PATIENCE_S = 15.0


@contextmanager
def told_if_slow(tell: Callable[[HeadraceError], None], where: str) -> Iterator[None]:
    """Tell, from a thread of its own, that the block has not ended after 5 s."""
    error = Unavailable("Kafka has not answered a publisher for 5 s", where=where, hint=_HINT)
    timer = Timer(PATIENCE_S, tell, [error])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
