"""A hold of a command's own: for as long as the command needs the table to stay as it is, and no longer."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headrace.selfserve.output import say, visible
from headrace.sinks.hold import hold, release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyiceberg.catalog import Catalog

    from headrace.schemas.product import Product

__all__ = ["own_hold"]


@contextmanager
def own_hold(catalog: Catalog, product: Product, command: str) -> Iterator[None]:
    """Hold a product while the block lasts, and release it whatever happens in there.

    A hold that was there before stays; but one that this command left behind when it was killed is its own again.

    Raises:
        Unavailable: it may or may not be held: the text says how to release it.
        NotApplied: there is no table.
        ProductStopped: the table is damaged.
    """
    reason = f"{command} is under way"
    try:
        before = hold(catalog, product, reason, datetime.now(UTC))
    except BaseException:
        say(f"{product.name} may be held now; next: headrace release {product.name}")
        raise
    own = before is None or before.reason == reason
    if before is not None and not own:
        say(f"{product.name} was {visible(str(before))}; it stays so")
    try:
        yield
    finally:
        if own:
            _release(catalog, product)


def _release(catalog: Catalog, product: Product) -> None:
    try:
        release(catalog, product)
    except BaseException:
        say(f"{product.name} is still held; next: headrace release {product.name}")
        raise
