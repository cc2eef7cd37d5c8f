"""Compaction as the keeper does it: now and then, and its commit between two landings."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import Unavailable
from headrace.sinks.attempts import Answer, Attempts
from headrace.sinks.upkeep.compaction import KEEPS_DELETES, Compacted, Compactor, has_deletes

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from threading import Event

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.upkeep.compaction import Rewritten
    from headrace.sinks.upkeep.part import Submit

# A run finds the files of this time. Most tables' commits are a second to ten apart.
EVERY_S = 30.0
# It rests so many times as long as it worked: the landing is what the processors are for.
RESTS = 3
# Each try that is refused means that others made progress; then the files are chosen anew.
TRIES = 5
# After a refused try it waits so long, after the next one twice as long, and so on.
PAUSE_S = 0.25
# How often it looks whether the session has ended while it waits for its turn.
POLL_S = 0.1

_LOG = structlog.get_logger("headrace.upkeep")


@dataclass(slots=True)
class Compacting:
    """Puts a table's small files together now and then. See :class:`headrace.sinks.upkeep.task.Task`.

    Attributes:
        compactor: does it.
        catalog: the catalog of the product's domain.
        submit: hands in the commit, which is done between two landings.
        every_s: how often it looks, at most.
        clock: the keeper's clock, in seconds.
    """

    compactor: Compactor
    catalog: Catalog
    submit: Submit
    every_s: float = EVERY_S
    clock: Callable[[], float] = time.monotonic
    name: str = "compaction"
    _again_s: float | None = None
    _told: bool = False

    def due(self, now_s: float) -> bool:
        """Tell whether it is time; the first time is ``every_s`` after it was first asked."""
        if self._again_s is None:
            self._again_s = now_s + self.every_s
        return now_s >= self._again_s

    def run(self, table: Table, /) -> None:
        """Do one run.

        Raises:
            HeadraceError: what was written is given up.
        """
        began_s = self.clock()
        try:
            self._run(table)
        finally:
            ended_s = self.clock()
            self._again_s = ended_s + max(self.every_s, RESTS * (ended_s - began_s))

    def _run(self, table: Table) -> None:
        log = _LOG.bind(product=str(self._product.name))
        if has_deletes(table, self._product):
            if not self._told:
                log.warning("small files are left as they are", what=KEEPS_DELETES)
            self._told = True
            return
        began_s = self.clock()
        rewritten = self.compactor.rewrite(table)
        if rewritten is None:
            return
        done = self._commit(rewritten)
        log.info(
            "compacted",
            files=done.files,
            into=done.into,
            rows=done.rows,
            bytes=done.bytes_before,
            into_bytes=done.bytes_after,
            seconds=round(self.clock() - began_s, 3),
            snapshot=done.snapshot_id,
        )

    @property
    def _product(self) -> Product:
        return self.compactor.product

    def _commit(self, rewritten: Rewritten) -> Compacted:
        """Commit, a few times if others are quicker.

        Raises:
            Unavailable: the table is not what the files were written for, others are always quicker, the session ended,
                or it is not known whether it landed; the next run looks anew, whatever is the case.
        """
        attempts = Attempts(self.catalog, self._product)

        def attempt() -> int | None:
            table = load_table(self.catalog, self._product)
            landed = attempts.landed(table)
            if landed is None:
                attempts.raise_doubt()
                staged = attempts.stage(table, rewritten.draft(table))
                if attempts.send(table, staged) is Answer.LANDED:
                    return staged.snapshot_id
                landed = attempts.landed(load_table(self.catalog, self._product))
            return landed

        for tried in range(1, TRIES + 1):
            snapshot_id = self._between_landings(attempt)
            if snapshot_id is not None:
                return rewritten.landed(snapshot_id)
            self.compactor.ended.wait(PAUSE_S * tried)
        raise Unavailable(
            "others commit to the table all the time", where=f"table {self._product.name}", hint="it is tried again"
        )

    def _between_landings(self, attempt: Callable[[], int | None]) -> int | None:
        ended: Event = self.compactor.ended
        future: Future[int | None] = self.submit(attempt)
        while not wait([future], POLL_S).done:
            if ended.is_set() and future.cancel():
                break
        try:
            return future.result()
        except CancelledError:
            raise Unavailable("the session has ended", where=f"table {self._product.name}") from None
