"""The soak's cluster, and its summary: a line for each thing that held, to be kept with the release's notes."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import pytest

from tests.support.clusters import cluster, doors, proxied

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cluster", "doors", "proxied"]

_SUMMARY = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return what adds a line to the summary."""
    lines = request.config.stash.setdefault(_SUMMARY, [])
    return lines.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the summary."""
    lines = config.stash.get(_SUMMARY, [])
    terminalreporter.section("soak")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    terminalreporter.write_line(f"{platform.system()} {platform.machine()}, {cores} cores")
    for line in lines:
        terminalreporter.write_line(f"- {line}")
