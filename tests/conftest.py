"""One cluster a test process: started with the first test that needs it, ended with the process, however that ends."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
import structlog

from headrace.selfserve.stack.embedded import EmbeddedStack, embedded_stack
from tests.support.meshes import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.schemas.mesh import Mesh


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
    """A broker and a registry that tests may kill. Mark these ``xdist_group("own-stack")``: one process starts it."""
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
