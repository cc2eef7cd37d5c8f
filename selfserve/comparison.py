"""What comparing a mesh's files with something older gives, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.schemas.compatibility import Finding
    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.names import ProductName

__all__ = ["Comparison", "ProductFinding"]


@dataclass(frozen=True, slots=True)
class ProductFinding:
    """A finding of a product.

    Attributes:
        product: whose it is.
        against: what it was compared with: a ref, or versions of a subject.
        finding: what was found.
    """

    product: ProductName
    against: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

    Attributes:
        findings: sorted by product, then in the order of the layers.
        unread: what kept a product from being compared; no finding of these files.
        compared: how many products were compared.
        parsed: how many of them had to be read, because something of them differs.
        all_must_be_read: whether a check fails if something is unread. A ref whose faults are mended now does not fail
            it; something applied that cannot be asked does.
    """

    findings: tuple[ProductFinding, ...]
    unread: tuple[HeadraceError, ...]
    compared: int
    parsed: int
    all_must_be_read: bool = False
