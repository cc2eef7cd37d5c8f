"""Masks: what takes the place of a PII value before the first write.

Names and rules follow the read-restrictions of Iceberg's REST specification where it has them; ``hmac-sha-256`` is
headrace's own, because a bare hash of an e-mail address can be undone with a list of addresses. In every mask a null
stays null.
"""

from __future__ import annotations

from enum import StrEnum


class Mask(StrEnum):
    """The masks of a mesh. A PII field gets its contract's choice, else its category's default in the policy.

    ==================== =============================================================================
    replace-with-null    null
    mask-to-fixed-value  one constant for each type: empty string, 0, false, 1970-01-01, empty list …
    mask-alphanum        digits become ``n``; ``( ) , . - @`` stay; all else becomes ``x``
    show-first-4         the first four characters, then ``x``; a value of four or fewer is masked whole
    show-last-4          ``x``, then the last four characters; a value of four or fewer is masked whole
    truncate-to-year     1 January of the year
    truncate-to-month    the first day of the month
    hmac-sha-256         keyed hash as 64 hexadecimal digits: equal values still join across domains
    ==================== =============================================================================
    """

    REPLACE_WITH_NULL = "replace-with-null"
    MASK_TO_FIXED_VALUE = "mask-to-fixed-value"
    MASK_ALPHANUM = "mask-alphanum"
    SHOW_FIRST_4 = "show-first-4"
    SHOW_LAST_4 = "show-last-4"
    TRUNCATE_TO_YEAR = "truncate-to-year"
    TRUNCATE_TO_MONTH = "truncate-to-month"
    HMAC_SHA_256 = "hmac-sha-256"


# Which Iceberg types a mask can be put on; None: any type, nested ones too.
_DATES = frozenset({"date", "timestamp", "timestamptz"})
APPLICABLE: dict[Mask, frozenset[str] | None] = {
    Mask.REPLACE_WITH_NULL: None,
    Mask.MASK_TO_FIXED_VALUE: frozenset(
        {"boolean", "int", "long", "float", "double", "string", "binary", "decimal", *_DATES}
    ),
    Mask.MASK_ALPHANUM: frozenset({"string"}),
    Mask.SHOW_FIRST_4: frozenset({"string"}),
    Mask.SHOW_LAST_4: frozenset({"string"}),
    Mask.TRUNCATE_TO_YEAR: _DATES,
    Mask.TRUNCATE_TO_MONTH: _DATES,
    Mask.HMAC_SHA_256: frozenset({"string"}),
}


def fits(mask: Mask, iceberg_type_name: str) -> bool:
    """Tell whether a mask can be put on a column type, named as Iceberg prints it (``decimal(9, 2)``, ``string``)."""
    applicable = APPLICABLE[mask]
    return applicable is None or iceberg_type_name.partition("(")[0] in applicable
