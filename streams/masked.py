"""Which fields a table has ever masked: its properties say so, and outlast what a registry loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.errors import ProductStopped
from headrace.schemas.masking import Masker
from headrace.schemas.masks import Mask
from headrace.schemas.policy import masks_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyiceberg.table import Table

    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.registry import RegisteredSchema

# One property for each masked field, by its path: a registry may lose the version that tagged it. Several workers add
# to them at once, which a single property of them all would not outlast.
MASK_PROPERTIES = "headrace.mask."


def masks_of(table: Table) -> dict[str, Mask]:
    """Return the masks of all fields that were ever masked in the table, by path. A field is never taken out again.

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


@dataclass(frozen=True, slots=True)
class Masks:
    """What masks do to the events that a subscriber sees.

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
        past: masks that the table has put on; None: the table is not read, and nothing is masked.
        known: the contract's masks.
        policy: the mesh's, for fields that a version of the schema tags.
        hmac_key: the mesh's secret; empty if nothing is masked.
    """

    live: bool
    past: Mapping[str, Mask] | None
    known: Mapping[str, Mask]
    policy: PiiPolicy
    hmac_key: bytes

    def over(self, versions: Iterable[RegisteredSchema]) -> Masks:
        """Return what masks do, given all versions of the schema."""
        if self.past is None:
            return Masks(Masker({}, b""), frozenset(), frozenset())
        # What the table has masked once stays masked, though the registry may have lost the version that said so.
        masks = masks_over({**self.past, **self.known}, self.policy, [version.schema for version in versions])
        both = [*self.past.items(), *masks.items()]
        nulled = frozenset(path for path, mask in both if mask is Mask.REPLACE_WITH_NULL)
        masker = Masker(masks, self.hmac_key) if self.live else Masker({}, b"")
        return Masks(masker, frozenset(path for path, _ in both), nulled)
