"""The mesh's rule for PII: each category's default mask, and what a contract may choose instead.

Categories are fideslang's dotted names. A rule for ``user.contact`` covers ``user.contact.email``; the longest rule
that covers a category wins; a PII field without a category, or with one that no rule covers, gets ``default``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, field_validator

from headrace.schemas.masks import Mask, fits
from headrace.schemas.paths import lies_in
from headrace.schemas.types import masked_leaf

if TYPE_CHECKING:
    from collections.abc import Container

    from headrace.schemas.avro import AvroType

# What a mask leaves of a value. 3: nothing. 2: whether two values are equal. 1: a part of the value. 0: more of a date
# than the year. Masks of one rank may stand in for each other; which of them fit a field is a question of its type.
STRENGTH = {
    Mask.REPLACE_WITH_NULL: 3,
    Mask.MASK_TO_FIXED_VALUE: 3,
    Mask.HMAC_SHA_256: 2,
    Mask.TRUNCATE_TO_YEAR: 1,
    Mask.SHOW_FIRST_4: 1,
    Mask.SHOW_LAST_4: 1,
    Mask.MASK_ALPHANUM: 1,
    Mask.TRUNCATE_TO_MONTH: 0,
}

_CATEGORY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


class PiiPolicy(BaseModel):
    """``policies/pii.yaml``.

    Attributes:
        default: the mask of PII whose category no rule covers.
        categories: rules by category.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    default: Mask = Field(description="the mask of PII without a known category, such as replace-with-null")
    categories: dict[str, Mask] = Field(default_factory=dict, description="a mask for each category")

    @field_validator("categories")
    @classmethod
    def _dotted(cls, categories: dict[str, Mask]) -> dict[str, Mask]:
        if not all(_CATEGORY.fullmatch(category) for category in categories):
            raise ValueError("a category is a dotted name such as user.contact.email")
        return categories

    def mask_of(self, category: str | None) -> Mask:
        """Return the mask of a category; None is PII without one."""
        parts = category.split(".") if category else []
        for length in range(len(parts), 0, -1):
            found = self.categories.get(".".join(parts[:length]))
            if found is not None:
                return found
        return self.default


def is_masked(path: str, masks: Container[str]) -> bool:
    """Tell whether a field is masked: by a mask of its own, or of a record, list or map that it lies in."""
    return path in masks or lies_in(path, masks)


def choose(default: Mask | None, chosen: Mask | None, avro_type: AvroType) -> tuple[Mask | None, str, str]:
    """Decide a field's mask from the policy's default and the contract's choice; None where there is none.

    Returns:
        The mask, and what is wrong with it and what to write instead (both "" if nothing is).
    """
    mask = chosen or default
    if mask is None:
        return None, "", ""
    if default is not None and STRENGTH[mask] < STRENGTH[default]:
        allowed = ", ".join(_fitting(avro_type, STRENGTH[default]))
        return mask, f"the mask {mask} is weaker than the policy's {default}", f"leave it out, or choose {allowed}"
    leaf = masked_leaf(avro_type)
    if not fits(mask, leaf):
        allowed = ", ".join(_fitting(avro_type, STRENGTH[default] if default else 0))
        author = "the contract's" if chosen else "the policy's"
        return mask, f"{author} mask {mask} does not fit {leaf}", f"choose in the contract {allowed}"
    return mask, "", ""


def _fitting(avro_type: AvroType, strength: int) -> list[str]:
    leaf = masked_leaf(avro_type)
    return [str(mask) for mask in Mask if STRENGTH[mask] >= strength and fits(mask, leaf)]
