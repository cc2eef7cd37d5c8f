"""What stops a product until an operator decides: both sides of what does not fit, and the next step. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.errors import ProductStopped

if TYPE_CHECKING:
    from headrace.schemas.product import Product


def topic_made_anew(product: Product, known: str, found: str) -> ProductStopped:
    """Return the error of a topic that was deleted and made anew under a table."""
    return ProductStopped(
        f"the topic was made anew: the table follows the topic {known}, Kafka has {found}",
        where=f"topic {product.topic}",
        hint=f"`headrace accept-topic {product.name}` lets the table go on with the new topic; offsets of the two are "
        "never mixed",
    )


def gap(product: Product, partition: int, first: int, low: int) -> ProductStopped:
    """Return the error of events that Kafka has deleted before the table held them: offsets from first to below low."""
    return ProductStopped(
        f"Kafka has deleted offsets {first} to {low - 1} of partition {partition} before they were in the table",
        where=f"topic {product.topic}",
        hint=f"`headrace accept-gap {product.name}` shows what is lost and lets the sink go on without it; "
        "raise the contract's retention",
    )
