"""Replaying a product: its rows are built anew from Kafka on a branch, and the branch takes main's place in one commit.

Readers of main see the old rows until then, and all the new ones after. Main's sinks go on landing meanwhile.

1. **Begin**: a branch at main's snapshot, so that nobody expires it. Its snapshot notes where the replay begins.
2. **Cut**: the rows that are built anew go from the branch, and its ledger goes back to where the replay begins.
3. **Drain**: the topic is read into the branch by an ordinary session, up to main's positions; again and again, until
   little is left.
4. **Hold**: main is held, so that its positions stay.
5. **Last drain**: exactly up to them.
6. **Swap**: one snapshot on main with the branch's rows and ledger; it removes the branch. It requires both heads to be
   what they were.

*It is broken off anywhere.* Main is as it was until the swap has landed. The next run reads the note and goes on.
*Main was rolled back, or others changed its rows meanwhile.* The swap would undo that: it is not made.
*A request to swap arrives late.* Main has moved, or the branch is gone: it is refused.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import ProductStopped
from headrace.sinks.kept import check_kept
from headrace.sinks.replay.boundary import BRANCH
from headrace.sinks.replay.cut import begin_branch, cut_branch, gone
from headrace.sinks.replay.plan import anew
from headrace.sinks.replay.swap import check_unchanged, swap
from headrace.sinks.stops import topic_made_anew
from headrace.streams.history import read_ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pyiceberg.table import Table

    from headrace.sinks.replay.drain import Drain
    from headrace.sinks.replay.plan import Plan

# Main is held for about as long as the last drain but one took.
_NEAR_S = 5.0


class Step(StrEnum):
    """The steps of a replay, in order; DRAIN is repeated."""

    BEGIN = "begin"
    CUT = "cut"
    DRAIN = "drain"
    HOLD = "hold"
    LAST_DRAIN = "last drain"
    SWAP = "swap"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Replay:
    """Runs a replay as it was planned.

    Attributes:
        drain: reads into the branch.
        held: keeps main held for as long as it is entered.
        observe: is told each step before it is done.
    """

    drain: Drain
    held: Callable[[], AbstractContextManager[object]]
    observe: Callable[[Step], None] = lambda _: None

    def run(self, plan: Plan) -> int:
        """Run it; return main's new snapshot.

        Raises:
            UserError: Kafka has deleted events meanwhile that are not read yet.
            ProductStopped: only an operator can decide how to go on, or must begin anew.
            Unavailable: something does not answer, or somebody changed the table meanwhile: run it again.
        """
        catalog, product = self.drain.catalog, self.drain.product
        self.observe(Step.BEGIN)
        begin_branch(catalog, product, plan.note)
        self.observe(Step.CUT)
        cut_branch(catalog, product, self.drain.tell)
        self._approach()
        self.observe(Step.HOLD)
        with self.held():
            table = self._main()
            head = table.metadata.current_snapshot_id
            self.observe(Step.LAST_DRAIN)
            self._drain(table)
            table = self._main()
            check_unchanged(table, product)
            self.observe(Step.SWAP)
            swapped = swap(catalog, product, head)
            self.observe(Step.RELEASE)
        return swapped

    def _approach(self) -> None:
        """Drain until the next one would be short, or no shorter."""
        before_s = float("inf")
        while True:
            self.observe(Step.DRAIN)
            began_s = time.monotonic()
            self._drain(self._main())
            took_s = time.monotonic() - began_s
            if took_s < _NEAR_S or took_s >= before_s:
                return
            before_s = took_s

    def _main(self) -> Table:
        return load_table(self.drain.catalog, self.drain.product)

    def _drain(self, table: Table) -> None:
        """Read up to where main is."""
        product, admin = self.drain.product, self.drain.admin
        main, branch = read_ledger(table, product), read_ledger(table, product, BRANCH)
        if main is None or branch is None:
            raise gone(product)
        topic = admin.topic(product.topic)
        if main.topic_id != branch.topic_id:
            raise ProductStopped(
                "the table follows another topic now than the one that the replay reads",
                where=f"table {product.name}",
                hint=anew(product),
            )
        if topic.id != branch.topic_id:
            raise topic_made_anew(product, branch.topic_id, topic.id)
        lows = {partition: marks.low for partition, marks in admin.watermarks(topic).items()}
        check_kept({p: branch.next(p) for p in lows}, lows, product, anew(product))
        self.drain.up_to({partition: at.next for partition, at in main.positions.items()})
