"""Waiting for what must become true, with a deadline; and letting a fault last. Tests sleep for nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# What takes a second on a quiet machine may take a minute where three test processes and their servers share two slow
# cores. A deadline costs nothing while the test passes.
PATIENCE_S = 120.0


def eventually(condition: Callable[[], bool], *, within_s: float = PATIENCE_S) -> bool:
    """Poll a condition until it holds; False if it did not within the time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def lasting(seconds: float) -> None:
    """Let what the test has broken stay broken for so long."""
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(left_s, 0.02))
