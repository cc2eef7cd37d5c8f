"""The kinds of products that ``headrace new`` knows."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Kind"]


class Kind(StrEnum):
    """What a product's events tell.

    ============= =====================================================================
    event         what happened, once and for all
    change-stream what became of a thing: what was done to it, and its state afterwards
    derived       what follows from the events of other products
    ============= =====================================================================
    """

    EVENT = "event"
    CHANGE_STREAM = "change-stream"
    DERIVED = "derived"
