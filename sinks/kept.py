"""Does Kafka still have what is to be read again? Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.errors import UserError
from headrace.streams.ledger import Ledger, gaps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.product import Product


def check_kept(offsets: Mapping[int, int], lows: Mapping[int, int], product: Product, hint: str) -> None:
    """Check that Kafka still has all from these positions on.

    Raises:
        UserError: it has not; the hint says what to do then.
    """
    kept = Ledger.begin("", offsets)
    lost = [f"offsets {first} to {low - 1} of partition {partition}" for partition, first, low in gaps(kept, lows)]
    if lost:
        raise UserError(
            f"Kafka has deleted {', '.join(lost)}, which would have to be read again",
            where=f"topic {product.topic}",
            hint=hint,
        )
