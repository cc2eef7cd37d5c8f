"""The fault tests' cluster: the broker and the registry of a process, each with a second door that tests break."""

from __future__ import annotations

from tests.support.clusters import cluster, doors, proxied

__all__ = ["cluster", "doors", "proxied"]
