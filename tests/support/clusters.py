"""Fixtures of a cluster with a second door; ``conftest.py`` of the folders that want one imports them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.meshes import Cluster
from tests.support.proxied import Doors, Proxied, ProxiedStack
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cluster", "doors", "proxied"]


@pytest.fixture(scope="session")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """Yield a running broker and registry, shared by the tests of one process, and the proxies before them."""
    with Proxy() as kafka, Proxy() as registry:
        stack = ProxiedStack(tmp_path_factory.mktemp("proxied"), kafka)
        endpoints = stack.up(die_with_parent=True, progress=lambda _: None)
        registry.upstream = urlsplit(endpoints.registry_url).port or 0
        yield Proxied(stack, Cluster(endpoints), Doors(kafka, registry))
        stack.down(lambda _: None)


@pytest.fixture(scope="session")
def cluster(proxied: Proxied) -> Cluster:
    """Return the servers themselves, as ``tests/conftest.py`` does for all other tests."""
    return proxied.cluster


@pytest.fixture
def doors(proxied: Proxied) -> Iterator[Doors]:
    """Yield the proxies, which pass everything before and after the test."""
    yield proxied.doors
    proxied.doors.kafka.pass_all()
    proxied.doors.registry.pass_all()
