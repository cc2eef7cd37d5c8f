"""What upkeep a product's sessions do, as its contract says."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

from headrace.sinks.upkeep.compacting import EVERY_S, Compacting
from headrace.sinks.upkeep.compaction import Compactor
from headrace.sinks.upkeep.deletion import Deletion
from headrace.sinks.upkeep.keeper import Keeper
from headrace.sinks.upkeep.letter_files import LetterFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyiceberg.catalog import Catalog

    from headrace.schemas.product import Product
    from headrace.sinks.upkeep.part import Submit
    from headrace.sinks.upkeep.sightings import Sightings
    from headrace.sinks.upkeep.task import Task

__all__ = ["keeping"]


def keeping(product: Product, catalog: Catalog, seen: Sightings) -> Callable[[Submit], Keeper]:
    """Return what opens the keeper of a session.

    Args:
        product: the product.
        catalog: the catalog of its domain.
        seen: the snapshots that this process has seen in the product's table.
    """

    def opened(submit: Submit) -> Keeper:
        ended = Event()
        tasks: list[Task] = []
        aims = product.contract.upkeep.compaction
        if aims is not None:
            tasks.append(Compacting(Compactor(product, aims, ended), catalog, submit, EVERY_S))
        tasks += (Deletion(product, seen, ended), LetterFiles.of(product, catalog, ended))
        return Keeper(product, catalog, tuple(tasks), ended)

    return opened
