"""What a session works with, and what is done for it in its pipeline's thread: decoding and landing, with patience."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from headrace.schemas.errors import Bug, Held
from headrace.sinks.landing import Landing
from headrace.sinks.upkeep.part import no_upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from threading import Event

    from headrace.schemas.product import Product
    from headrace.sinks.batch import Batch, Chunk, Limits
    from headrace.sinks.decoding import Decoding
    from headrace.sinks.landing import Desk, Landed, Step
    from headrace.sinks.patience import Patience
    from headrace.sinks.upkeep.part import Submit, Upkeep
    from headrace.streams.admin import Admin
    from headrace.streams.frames import Frame
    from headrace.streams.ledger import Ledger

__all__ = ["Work", "Works"]

Result = TypeVar("Result")


def _untold(_watermark_s: float | None, /) -> None:
    """Nobody asks how far the worker is."""


@dataclass(frozen=True, slots=True)
class Works:
    """What a session works with; all of it belongs to one product.

    ``observe`` is told each step of a landing before it is done, from the pipeline's thread. ``landed`` is told each
    commit and the seconds from the batch's turn to land until then, waits included. ``abandon`` is set when the session
    ends: from then on nothing waits any longer. ``upkeep`` is opened with the session, is told each commit and each
    poll, and is closed with it; what it hands in is done between two landings. ``reached`` is told the watermark of the
    session's partitions (see `headrace.sinks.watermark`) when it has moved, about once a second; None: there is none.
    """

    product: Product
    admin: Admin
    decoding: Decoding
    desk: Desk
    limits: Limits
    patience: Patience
    observe: Callable[[Step], None]
    landed: Callable[[Landed, float], None]
    abandon: Event
    upkeep: Callable[[Submit], Upkeep] = no_upkeep
    reached: Callable[[float | None], None] = _untold


class Work:
    """Decodes and lands, however often it must be tried. Its methods run in the pipeline's thread.

    Attributes:
        unreleased: its last attempt found that the product is held.
    """

    def __init__(self, works: Works) -> None:
        self._works = works
        self.unreleased = False

    def decode(self, frame: Frame) -> Chunk:
        """Decode a frame.

        Raises:
            Unavailable: the session has ended meanwhile.
            ProductStopped: only an operator can decide.
        """
        return self._patiently(lambda: self._works.decoding.chunk(frame))

    def land(self, batch: Batch, base: Ledger) -> Landed:
        """Land a batch whose frames have been decoded.

        Raises:
            Stale: the batch is not this worker's any more.
            Unavailable, ProductStopped: as `decode`.
        """
        chunks = [chunk.result() for chunk in batch.chunks]
        landing = Landing(self._works.desk, base, batch.ranges(chunks), chunks)
        steps_s: dict[Step, float] = {}

        def drive() -> Landed:
            for step in _timed(landing, steps_s):
                self._works.observe(step)
            if landing.landed is None:
                raise Bug("the landing ended without an outcome")
            return replace(landing.landed, read_bytes=batch.bytes, steps_s=steps_s)

        return self._patiently(drive)

    def _patiently(self, action: Callable[[], Result]) -> Result:
        """Do it however often; decoding may wait for a release as landing does."""

        def attempt() -> Result:
            unreleased = False
            try:
                return action()
            except Held:
                unreleased = True
                raise
            finally:
                self.unreleased = unreleased

        return self._works.patience.with_(attempt, self._works.abandon)


def _timed(steps: Iterable[Step], seconds: dict[Step, float]) -> Iterator[Step]:
    """Yield steps before they are done, and add up how long each of them takes."""
    doing, began_s = None, 0.0
    try:
        for step in steps:
            _add(seconds, doing, began_s)
            yield step
            doing, began_s = step, time.monotonic()
        _add(seconds, doing, began_s)
    except Exception:
        _add(seconds, doing, began_s)
        raise


def _add(seconds: dict[Step, float], step: Step | None, began_s: float) -> None:
    if step is not None:
        seconds[step] = seconds.get(step, 0.0) + time.monotonic() - began_s
