"""Paths of fields: names behind dots, ``[]`` for what a list holds, ``{}`` for a map's values. Pure.

``order.items[].price`` is the price of each item of the order, ``by{}`` the values of a map, ``payer.Company.name`` the
name in a branch of a union.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

# What leads one step deeper; names have none of these characters.
_STEP = re.compile(r"\.|\[\]|\{\}")


def below(path: str, name: str) -> str:
    """Return the path of a record's field; ``path`` is the record's own, "" that of the event."""
    return f"{path}.{name}" if path else name


def around(path: str) -> Iterator[str]:
    """Yield the paths that a path lies in, from the outside: of its records, and of its lists and maps."""
    return (path[: step.start()] for step in _STEP.finditer(path))


def lies_in(path: str, others: Container[str]) -> bool:
    """Tell whether a path lies in one of others; in itself none does."""
    return any(outer in others for outer in around(path))
