"""How much memory one of the products takes that a process serves: so that many small ones fit into one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

_MIB = 1 << 20
# What one product takes that is alone: files of 128 MiB of events are what engines like to read.
_MOST_BATCH_BYTES = 128 * _MIB
_MOST_FETCHED_BYTES = 64 * _MIB
# What all products of a process take together: four that drain their topics at once are as quick as one each.
_ALL_BATCH_BYTES = 4 * _MOST_BATCH_BYTES
_ALL_FETCHED_BYTES = 4 * _MOST_FETCHED_BYTES
# With less, a product that catches up would make small files only, and ask the broker more often than it reads.
_LEAST_BATCH_BYTES = 8 * _MIB
_LEAST_FETCHED_BYTES = 4 * _MIB


@dataclass(frozen=True, slots=True)
class Share:
    """What one product may take.

    Attributes:
        batch_bytes: keys, values and headers of a batch that is due; while it lands, the next one grows.
        fetched_bytes: what is fetched ahead of what has been read.
    """

    batch_bytes: int = _MOST_BATCH_BYTES
    fetched_bytes: int = _MOST_FETCHED_BYTES

    @classmethod
    def of(cls, products: int) -> Self:
        """Return the share of each of so many products. Beyond 64 it grows no smaller, so all take more together."""
        return cls(
            min(_MOST_BATCH_BYTES, max(_ALL_BATCH_BYTES // products, _LEAST_BATCH_BYTES)),
            min(_MOST_FETCHED_BYTES, max(_ALL_FETCHED_BYTES // products, _LEAST_FETCHED_BYTES)),
        )
