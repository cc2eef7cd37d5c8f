"""Who watches the sinks: what is told of each product's sink, and how it is known that one waits or goes on.

A sink waits in three places, and goes on only when none of them waits any longer: for its session (Kafka's group has
not given it partitions yet, or the last session broke off), in reading (the broker is out of reach), and in its work
(registry, catalog, storage or broker does not answer a landing). `Standing` keeps them apart.
"""

from __future__ import annotations

import time
from dataclasses import replace
from enum import StrEnum
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import structlog

from headrace.sinks.pipeline import Pipeline
from headrace.streams.reading import ReaderBefore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from headrace.schemas.errors import HeadraceError, Unavailable
    from headrace.schemas.product import Product
    from headrace.sinks.landing import Landed
    from headrace.streams.reader import Polled, Reader

# How often a reader in trouble looks whether its partitions' leaders answer again.
PROBE_S = 1.0
# An abandoned question to a broker need not be waited for.
_PROBE_CLOSE_S = 0.1

_LOG = structlog.get_logger("headrace.sink")


class Watcher(Protocol):
    """Is told how the sinks get on: from their threads, several at once. It must neither block nor raise.

    Of one product `running` and `waiting` come in the order in which they hold, and `ended` comes last, unless it ended
    on a fault after which it is tried again: if it goes on they come again, if not `ended` comes again.
    """

    def running(self, product: Product) -> None:
        """It has a session and waits for nothing, for the first time or again."""
        ...

    def waiting(self, product: Product, error: HeadraceError) -> None:
        """It waits for what the error names. Told again with each new reason, and each time that it asked in vain."""
        ...

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:
        """A batch is in the table, so many seconds after its turn to land came, waits included."""
        ...

    def reached(self, product: Product, watermark_s: float | None) -> None:
        """What its partitions were sent until then is in the table: seconds since 1970 UTC, once a second at most.

        None: nothing is known of some partition yet, or this process has none. See `headrace.sinks.watermark`.
        """
        ...

    def ended(self, product: Product, fault: HeadraceError | None) -> None:
        """It reads no more: because it was told to stop or has caught up (None), or on a fault (`Bug`: a bug)."""
        ...


class Unwatched:
    """A watcher that does nothing; watch by overriding what is of interest."""

    def running(self, product: Product) -> None:
        """See :meth:`Watcher.running`."""

    def waiting(self, product: Product, error: HeadraceError) -> None:
        """See :meth:`Watcher.waiting`."""

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:
        """See :meth:`Watcher.landed`."""

    def reached(self, product: Product, watermark_s: float | None) -> None:
        """See :meth:`Watcher.reached`."""

    def ended(self, product: Product, fault: HeadraceError | None) -> None:
        """See :meth:`Watcher.ended`."""


class Watchers:
    """Several watchers as one. One that breaks the rule and raises is logged, and the others are told all the same.

    Args:
        watchers: whom to tell, in this order.
    """

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = tuple(watchers)

    def running(self, product: Product) -> None:
        """See :meth:`Watcher.running`."""
        self._tell(lambda watcher: watcher.running(product))

    def waiting(self, product: Product, error: HeadraceError) -> None:
        """See :meth:`Watcher.waiting`."""
        self._tell(lambda watcher: watcher.waiting(product, error))

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:
        """See :meth:`Watcher.landed`."""
        self._tell(lambda watcher: watcher.landed(product, landed, seconds))

    def reached(self, product: Product, watermark_s: float | None) -> None:
        """See :meth:`Watcher.reached`."""
        self._tell(lambda watcher: watcher.reached(product, watermark_s))

    def ended(self, product: Product, fault: HeadraceError | None) -> None:
        """See :meth:`Watcher.ended`."""
        self._tell(lambda watcher: watcher.ended(product, fault))

    def _tell(self, tell: Callable[[Watcher], None]) -> None:
        for watcher in self._watchers:
            try:
                tell(watcher)
            except Exception as error:  # noqa: BLE001 - no sink stops for who watches it; a message may hold a value
                _LOG.error("a watcher is broken", watcher=type(watcher).__name__, kind=type(error).__name__)


class Wait(StrEnum):
    """Where a sink may wait."""

    SESSION = "session"
    READING = "reading"
    WORK = "work"


class Standing:
    """Whether a product's sink goes on or waits. Tells the watcher of it, in order. Safe for several threads."""

    def __init__(self, product: Product, watcher: Watcher) -> None:
        self._product = product
        self._watcher = watcher
        self._log = _LOG.bind(product=str(product.name))
        self._lock = Lock()
        # None: nobody has failed, it has just not begun.
        self._waits: dict[Wait, HeadraceError | None] = {Wait.SESSION: None}
        self._over = False

    def opening(self) -> None:
        """A new session begins: what the last one waited for is forgotten, why it broke off is not."""
        with self._lock:
            self._over = False
            self._waits = {Wait.SESSION: self._waits.get(Wait.SESSION)}

    def waits(self, place: Wait, error: HeadraceError) -> None:
        """It waits in one place."""
        with self._lock:
            # A session repeats what its reader has said already; and a landing that was given up may still speak.
            if self._over or (place is not Wait.READING and error is self._waits.get(Wait.READING)):
                return
            self._waits[place] = error
            self._watcher.waiting(self._product, error)

    def goes_on(self, place: Wait) -> None:
        """It waits no longer in one place."""
        with self._lock:
            if self._over or place not in self._waits:
                return
            failed = self._waits.pop(place) is not None
            if self._waits:
                return
            if failed:
                self._log.info("going on")
            self._watcher.running(self._product)

    def ended(self, fault: HeadraceError | None) -> None:
        """It has ended; nothing is told after this, unless a new session begins."""
        with self._lock:
            self._over = True
            self._watcher.ended(self._product, fault)


class WatchedReader(ReaderBefore):
    """A reader whose trouble has an end: librdkafka tells that a broker is out of reach, never that it is back.

    While there is trouble, ``ask`` is asked in a thread of its own, about once a second: its answer, or any message,
    ends the trouble. Polling is never held up.

    Args:
        reader: the reader.
        standing: is told of trouble and of its end.
        ask: puts a question to the leaders of the reader's partitions; raises if they do not answer.
    """

    def __init__(self, reader: Reader, standing: Standing, ask: Callable[[], object]) -> None:
        super().__init__(reader)
        self._standing = standing
        self._ask = ask
        self._trouble: Unavailable | None = None
        self._probes: Pipeline | None = None
        self._probe: Future[object] | None = None
        self._ask_at_s = 0.0

    def poll(self, timeout_s: float) -> Polled:
        """See :meth:`headrace.streams.reader.Reader.poll`. Trouble is told with each poll until it has ended."""
        polled = self._reader.poll(timeout_s)
        if polled.trouble is not None:
            self._trouble = polled.trouble
            self._forget_probe()
            self._ask_at_s = time.monotonic() + PROBE_S
            self._standing.waits(Wait.READING, polled.trouble)
        elif self._trouble is not None and (polled.frames or polled.ends or self._answered()):
            self._trouble = None
            self._standing.goes_on(Wait.READING)
        return replace(polled, trouble=self._trouble)

    def close(self) -> None:
        """See :meth:`headrace.streams.reader.Reader.close`."""
        super().close()
        if self._probes is not None:
            self._probes.close(_PROBE_CLOSE_S)

    def _forget_probe(self) -> None:
        """An answer to a question that was put before the trouble says nothing; one that waits need not be put."""
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    def _answered(self) -> bool:
        if self._probe is None:
            if time.monotonic() >= self._ask_at_s:
                self._probes = self._probes or Pipeline("probe")
                self._probe = self._probes.submit(self._ask)
            return False
        if not self._probe.done():
            return False
        probe, self._probe = self._probe, None
        self._ask_at_s = time.monotonic() + PROBE_S
        return not probe.cancelled() and probe.exception() is None
