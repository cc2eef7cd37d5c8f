"""Which of Kafka's timestamps a table can hold: the sink writes by this rule, and the auditor compares by it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import numpy.typing as npt

# 9999-12-31T23:59:59.999 UTC: Python's readers of a table fail on anything later.
LAST_MS = 253_402_300_799_999


def holdable(timestamps_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell which timestamps are in 1970 to 9999; a table holds null instead of any other.

    Kafka says -1 where there is no timestamp, and a producer may send any number.
    """
    return (timestamps_ms >= 0) & (timestamps_ms <= LAST_MS)


def stamp_column(timestamps_ms: npt.NDArray[np.int64]) -> pa.TimestampArray:
    """Return timestamps as a table's column has them: to the microsecond, in UTC, null where it can hold none."""
    stamped = holdable(timestamps_ms)
    return pa.array(np.where(stamped, timestamps_ms, 0) * 1_000, mask=~stamped).cast(pa.timestamp("us", tz="UTC"))
