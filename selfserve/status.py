"""What a mesh is like now, as values: its servers, and how far each product's table has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.schemas.errors import HeadraceError
    from headrace.selfserve.backlog import Lag
    from headrace.selfserve.stack import ServerStatus
    from headrace.sinks.hold import Hold

__all__ = ["Look", "MeshStatus", "ProductStatus", "each_once"]


@dataclass(frozen=True, slots=True)
class ProductStatus:
    """What was found of a product. None: it could not be found out.

    Attributes:
        product: ``domain.product``.
        topic: the topic's name.
        partitions: the topic's partitions; 0: there is no such topic.
        lag: what of the topic is not in the table yet.
        snapshot_id: the last snapshot that a sink committed; where others have expired it, the newest one that says how
            far the table is. None also if there never was one.
        committed_s: when that was made, seconds since 1970 UTC.
        rows: rows in the table, of all generations.
        snapshots: snapshots that the table has.
        files: data files of its newest snapshot.
        dead_letters: distinct dead letters of events that the topic still has and the table has not.
        held: whether an operator holds the product.
        hold: why it is held, and since when.
        replay_from: where a replay began that has not ended; None: there is none.
        open_findings: findings of the auditor that are open.
        faults: what only a person can mend: no topic, no table, a gap, a damaged ledger.
        unasked: what did not answer.
    """

    product: str
    topic: str
    partitions: int | None = None
    lag: Lag | None = None
    snapshot_id: int | None = None
    committed_s: float | None = None
    rows: int | None = None
    snapshots: int | None = None
    files: int | None = None
    dead_letters: int | None = None
    held: bool | None = None
    hold: Hold | None = None
    replay_from: str | None = None
    open_findings: int | None = None
    faults: tuple[HeadraceError, ...] = ()
    unasked: tuple[HeadraceError, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at some products found. ``unasked``: what did not answer, each once."""

    products: tuple[ProductStatus, ...]
    unasked: tuple[HeadraceError, ...]


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """What was found of a mesh.

    Attributes:
        servers: the servers of the environment's stack.
        products: its products.
        unasked: what did not answer, each once.
        stray_findings: open findings of topics that belong to no product; None: it could not be found out.
    """

    servers: tuple[ServerStatus, ...]
    products: tuple[ProductStatus, ...]
    unasked: tuple[HeadraceError, ...]
    stray_findings: int | None = None

    @property
    def fine(self) -> bool:
        """Whether every server runs and answers, and no product has a fault."""
        return (
            not self.unasked
            and all(server.state == "running" for server in self.servers)
            and not any(product.faults for product in self.products)
        )


def each_once(errors: Iterable[HeadraceError]) -> tuple[HeadraceError, ...]:
    """Return errors without those that say the same as one before them."""
    return tuple({str(error): error for error in errors}.values())
