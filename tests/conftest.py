"""One cluster a test process: started with the first test that needs it, ended with the process, however that ends.

Tests run in several processes. Those that share something dear are run by one of them: see `Together`.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
import structlog
from xdist.scheduler import LoadScopeScheduling

from headrace.selfserve.stack.embedded import EmbeddedStack, embedded_stack
from tests.support.meshes import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.schemas.mesh import Mesh

# Outages kill a stack of their own and start it again; the demo streams for a minute and more.
TOGETHER = ("tests/outages/", "tests/integration/test_demo.py")
# What takes half a minute and more begins first, so that no process is left with one of them at the end.
LONG = (
    "faults/test_verify_memory",
    "faults/test_vouchers_killed",
    "faults/test_stale_workers",
    "faults/test_storms",
    "faults/test_audit_killed",
    "faults/test_history_first",
    "faults/test_registry_away",
    "faults/test_sigkill",
    "integration/test_tutorial",
    "integration/test_vouchers",
    "integration/test_embedded_stack",
)


class Together(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no type hints
    """Keeps what `TOGETHER` names in one process each; every other test goes to the next process that is free.

    It stands for ``--dist loadgroup``: xdist 3.8 marks groups in a test's id, which pytest 9.2 keeps elsewhere.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((shared for shared in TOGETHER if nodeid.startswith(shared)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Together:
    """Distribute tests over processes in headrace's own way."""
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let long tests come first; otherwise the order stays."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONG))


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Undo what a command that ran in this process has set up for its log: its stderr ends with the test."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running broker and registry, shared by the tests of one process."""
    stack = embedded_stack(tmp_path_factory.mktemp("cluster"))
    endpoints = stack.up(die_with_parent=True, progress=lambda _: None)
    yield Cluster(endpoints)
    stack.down(lambda _: None)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """A broker and a registry that tests may kill. Such tests stand in ``tests/outages``: one process starts it."""
    stack = embedded_stack(tmp_path_factory.mktemp("own"))
    yield stack
    stack.down(lambda _: None)


@pytest.fixture
def own(stack: EmbeddedStack) -> Cluster:
    """That broker and registry, running."""
    return Cluster(stack.up(die_with_parent=True, progress=lambda _: None))


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}."


@pytest.fixture
def mesh(cluster: Cluster, tmp_path: Path, prefix: str) -> Mesh:
    """A mesh with the product ``shop.orders``, applied."""
    return cluster.applied(tmp_path / "mesh", prefix=prefix)
