"""What stopped a product may be gone: looked at now and then, without reading events and without joining a group.

A fault is tried once again in any case: what it was about may have been mended before the first look, and some of what
may be mended, as a file that storage did not show, is seen in nothing that a look finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from headrace.schemas.catalog import catalog_errors, load_table
from headrace.schemas.errors import HeadraceError, NotApplied, ProductStopped, Unavailable
from headrace.sinks.dead_letters.table import LETTERS_OF, filed
from headrace.sinks.evolution import followed_version
from headrace.streams.history import read_ledger
from headrace.streams.ledger import gaps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.streams.admin import Admin
    from headrace.streams.ledger import Accepted

__all__ = ["LOOK_AGAIN_S", "Mending", "Signs", "mendable", "signs_of"]

# How often it is looked whether somebody has mended what stopped a product.
LOOK_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Signs:
    """What changes when somebody mends a product, and what no other worker changes by going on.

    Attributes:
        topic_id: the topic's id; None: there is no topic.
        table: its identity, its schema, its partitioning, the version that it has followed, how often it was rolled
            back.
        ledger: the topic and the generation that its ledger follows; None: it has no ledger.
        accepted: the gaps that were accepted.
        lost: the partitions with a gap.
        letters: what the table of dead letters is: its identity, its schema, whether headrace made it; empty: there is
            none.
        fault: why table or ledger cannot be read; the others are empty then.
    """

    topic_id: str | None
    table: tuple[object, ...] = ()
    ledger: tuple[str, int] | None = None
    accepted: tuple[tuple[int, Accepted], ...] = ()
    lost: frozenset[int] = frozenset()
    letters: tuple[object, ...] = ()
    fault: str | None = None


def mendable(fault: HeadraceError) -> bool:
    """Tell whether a sink that stopped on this fault may go on by itself, once somebody has mended it.

    Settings and rights are read when a process starts, and a bug stays one.
    """
    return isinstance(fault, ProductStopped | NotApplied)


def signs_of(product: Product, catalog: Catalog, admin: Admin) -> Signs:
    """Look at a product's topic, table and ledger.

    Raises:
        Unavailable: Kafka, catalog or storage does not answer.
        UserError: a right is missing, or credentials are refused.
    """
    topic = admin.find(product.topic).get(product.topic)
    topic_id = topic.id if topic else None
    try:
        table = load_table(catalog, product)
        ledger = read_ledger(table, product)
        _read_manifests(table, product)
    except (NotApplied, ProductStopped) as error:
        return Signs(topic_id, fault=error.what)
    letters = _letters_of(product, catalog)
    if ledger is None:
        return Signs(topic_id, _like(table), letters=letters)
    lows: Mapping[int, int] = {}
    if topic is not None and topic.id == ledger.topic_id:
        lows = {partition: marks.low for partition, marks in admin.watermarks(topic).items()}
    return Signs(
        topic_id,
        _like(table),
        (ledger.topic_id, ledger.generation),
        tuple((partition, gap) for partition, gaps_of in ledger.accepted.items() for gap in gaps_of),
        frozenset(partition for partition, _, _ in gaps(ledger, lows)),
        letters,
    )


def _like(table: Table) -> tuple[object, ...]:
    metadata = table.metadata
    sequence = {each.snapshot_id: each.sequence_number or 0 for each in metadata.snapshots}
    heads = [sequence[entry.snapshot_id] for entry in metadata.snapshot_log if entry.snapshot_id in sequence]
    # Commits only ever raise the head's number.
    rollbacks = sum(after < before for before, after in pairwise(heads))
    return (
        metadata.table_uuid,
        metadata.current_schema_id,
        metadata.default_spec_id,
        followed_version(table),
        rollbacks,
    )


def _letters_of(product: Product, catalog: Catalog) -> tuple[object, ...]:
    try:
        table = load_table(catalog, filed(product))
    except NotApplied:
        return ()
    except ProductStopped as error:
        return (error.what,)
    return table.metadata.table_uuid, table.metadata.current_schema_id, LETTERS_OF in table.properties


def _read_manifests(table: Table, product: Product) -> None:
    head = table.metadata.current_snapshot()
    with catalog_errors(f"table {product.name}"):
        for manifest in head.manifests(table.io) if head is not None else ():
            manifest.fetch_manifest_entry(table.io)


class Mending:
    """Tells when it is worth while to try again: once in any case, and then when the signs have changed since that try.

    They are compared with those before the try, so that nothing is missed that is mended while it fails.

    Args:
        look: returns the signs; see `signs_of` for what it raises.
    """

    def __init__(self, look: Callable[[], Signs]) -> None:
        self._look = look
        self._before: Signs | None = None

    def forget(self) -> None:
        """The product goes on: whatever stops it next is another fault."""
        self._before = None

    def seen(self) -> bool:
        """Tell whether to try now. What does not answer shows no change."""
        now = self._signs()
        if now is None or now == self._before:
            return False
        self._before = now
        return True

    def _signs(self) -> Signs | None:
        try:
            return self._look()
        except Unavailable:
            return None
        except HeadraceError as error:
            return Signs(None, fault=error.what)
