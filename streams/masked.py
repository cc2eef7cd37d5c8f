"""Which fields a table has ever masked: its properties say so, and outlast what a registry loses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headrace.schemas.errors import ProductStopped
from headrace.schemas.mask_lineage import column_masks
from headrace.schemas.masking import Masker
from headrace.schemas.masks import Mask, fits
from headrace.schemas.types import masked_leaf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table

    from headrace.schemas.avro import Field
    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Product
    from headrace.schemas.registered import RegisteredSchema
    from headrace.streams.versions import Versions

# One property for each masked field, by its path: a registry may lose the version that tagged it. Several workers add
# to them at once, which a single property of them all would not outlast.
MASK_PROPERTIES = "headrace.mask."
# Set for good once a key field was masked: a later contract may choose another key, and the topic still holds the old.
KEY_MASKED_PROPERTY = "headrace.key-masked"


def masks_of(table: Table) -> dict[str, Mask]:
    """Return the masks of all fields that were ever masked in the table, by path, earlier names of theirs among them.

    A field is never taken out again; a path is only when it becomes another column's (`ColumnMasks.noted`).

    Raises:
        ProductStopped: if somebody has written a mask that this version of headrace does not know.
    """
    found = {}
    for name, mask in table.properties.items():
        if name.startswith(MASK_PROPERTIES):
            try:
                found[name.removeprefix(MASK_PROPERTIES)] = Mask(mask)
            except ValueError:
                raise ProductStopped(
                    f"the table's property {name} names no mask that this headrace knows",
                    where=f"table {'.'.join(table.name()[-2:])}",
                    hint="upgrade headrace, or correct the property",
                ) from None
    return found


def is_key_masked(table: Table) -> bool:
    """Tell whether a key of the product's messages has ever held a masked field."""
    return table.properties.get(KEY_MASKED_PROPERTY) == "true"


@dataclass(frozen=True, slots=True)
class Noted:
    """What a table notes: its masks by path (`masks_of`), and the newest version that it has followed; 0: none."""

    masks: Mapping[str, Mask]
    held: int


@dataclass(frozen=True, slots=True)
class Masks:
    """What masks do to the events that a subscriber sees. Paths are those of the version that events are read as.

    Attributes:
        masker: puts them on what comes from the topic.
        put: the paths of fields that are masked in the table.
        nulled: the paths of fields that may be null whatever the schema says.
    """

    masker: Masker
    put: frozenset[str]
    nulled: frozenset[str]


@dataclass(frozen=True, slots=True)
class Masking:
    """How a subscriber's events are masked.

    Attributes:
        live: whether masks are put on what comes from the topic.
        past: what the table notes of masks that it has put on; None: the table is not read, and nothing is masked.
        product: the product, with the contract's masks.
        policy: the mesh's, for fields that a version of the schema tags.
        hmac_key: the mesh's secret; empty if nothing is masked.
    """

    live: bool
    past: Noted | None
    product: Product
    policy: PiiPolicy
    hmac_key: bytes

    def over(self, versions: Versions, pinned: RegisteredSchema) -> Masks:
        """Return what masks do to events read as a version, given all versions of the schema.

        A field is masked under whatever name a version has it: what is tagged or noted is the column.
        """
        if self.past is None:
            return Masks(Masker({}, b""), frozenset(), frozenset())
        lineage, placed = versions.lineage, versions.lineage.steps[pinned.version].placed
        schemas = {version.version: version.schema for version in versions.all}
        now = column_masks(self.product, self.policy, schemas, lineage)
        # What the table has masked once stays masked, though the registry may have lost the version that said so.
        masks = {
            path: _fitting(mask, pinned.schema.at(path))
            for path, mask in now.including(self.past.masks, lineage, self.past.held).at(placed).items()
        }
        before = replace(now, by_id={}, by_path={}).including(self.past.masks, lineage, self.past.held).at(placed)
        both = [*before.items(), *masks.items()]
        nulled = frozenset(path for path, mask in both if mask is Mask.REPLACE_WITH_NULL)
        masker = Masker(masks if self.live else {}, self.hmac_key if self.live else b"")
        return Masks(masker, frozenset(path for path, _ in both), nulled)


def _fitting(mask: Mask, field: Field | None) -> Mask:
    # A version that no table can follow may have a field of another type than its column is.
    return mask if field is None or fits(mask, masked_leaf(field.type)) else Mask.REPLACE_WITH_NULL
