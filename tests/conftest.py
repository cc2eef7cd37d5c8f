"""One cluster a test process: started with the first test that needs it, ended with the process, however that ends."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from headrace.selfserve.stack.embedded import embedded_stack
from tests.support.meshes import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.schemas.mesh import Mesh


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running broker and registry, shared by the tests of one process."""
    stack = embedded_stack(tmp_path_factory.mktemp("cluster"))
    endpoints = stack.up(die_with_parent=True, progress=lambda _: None)
    yield Cluster(endpoints)
    stack.down(lambda _: None)


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}."


@pytest.fixture
def mesh(cluster: Cluster, tmp_path: Path, prefix: str) -> Mesh:
    """A mesh with the product ``shop.orders``, applied."""
    return cluster.applied(tmp_path / "mesh", prefix=prefix)
