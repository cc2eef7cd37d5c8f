"""A hold of a command's own: for as long as the command needs the table to stay as it is, and no longer."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headrace.schemas.catalog import load_table
from headrace.selfserve.ending import ended_by_signals
from headrace.selfserve.output import say, visible
from headrace.sinks.hold import hold, hold_of, release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyiceberg.catalog import Catalog

    from headrace.schemas.product import Product

__all__ = ["own_hold", "release_left_behind"]


@contextmanager
def own_hold(catalog: Catalog, product: Product, command: str) -> Iterator[bool]:
    """Hold a product while the block lasts, and release it whatever happens in there; SIGTERM and SIGHUP end it too.

    A hold that was there before stays; but one that this command left behind when it was killed is its own again.
    Yields whether the hold is the command's own.

    Raises:
        Unavailable: it may or may not be held: the text says how to release it.
        NotApplied: there is no table.
        ProductStopped: the table is damaged.
    """
    reason = _reason(command)
    try:
        before = hold(catalog, product, reason, datetime.now(UTC))
    except BaseException:
        say(f"{product.name} may be held now; next: headrace release {product.name}")
        raise
    own = before is None or before.reason == reason
    if before is not None and not own:
        say(f"{product.name} was {visible(str(before))}; it stays so")
    try:
        with ended_by_signals():
            yield own
    finally:
        if own:
            _release(catalog, product)


def release_left_behind(catalog: Catalog, product: Product, command: str) -> None:
    """Release a hold that a command left behind when it was killed; others' holds stay.

    Raises:
        Unavailable: it may still be held.
        NotApplied: there is no table.
    """
    there = hold_of(load_table(catalog, product))
    if there is not None and there.reason == _reason(command):
        _release(catalog, product)


def _reason(command: str) -> str:
    return f"{command} is under way"


def _release(catalog: Catalog, product: Product) -> None:
    try:
        release(catalog, product)
    except BaseException:
        say(f"{product.name} is still held; next: headrace release {product.name}")
        raise
