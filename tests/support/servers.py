"""Servers of a test's own, killed as a crash or the kernel kills them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.support.sinks import eventually

if TYPE_CHECKING:
    from headrace.selfserve.stack.embedded import EmbeddedStack


def kill(stack: EmbeddedStack, server: str) -> None:
    """Kill a server and wait until it is known to be gone."""
    (status,) = [status for status in stack.status() if status.name == server]
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    assert eventually(lambda: server in {each.name for each in stack.status() if each.state == "crashed"})
