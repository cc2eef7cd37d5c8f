"""A broker with a second door: its clients come in directly, or through a proxy that tests break."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import yaml

from headrace.schemas.mesh import load_mesh
from headrace.selfserve.stack.artefacts import default_store
from headrace.selfserve.stack.embedded import EmbeddedStack
from headrace.selfserve.stack.kafka import Kafka
from headrace.selfserve.stack.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from headrace.selfserve.stack.artefacts import Programs
    from tests.support.meshes import Cluster
    from tests.support.proxy import Proxy

PROXIED = "proxied"
# What this listener is called is all that a client needs to be sent back through the proxy: a client is told the
# advertised address of the listener that it asked.
_LISTENER = "PROXIED"


class _ProxiedKafka(Kafka):
    """The embedded broker with one more listener, which it advertises under the proxy's address."""

    port_names = (*Kafka.port_names, PROXIED)  # type: ignore[assignment]  # one more than a broker of a mesh has

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def prepare(self, programs: Programs, folder: Path, ports: Mapping[str, int]) -> list[str]:
        """Add the listener to the settings, and tell the proxy where it is."""
        command = super().prepare(programs, folder, ports)
        self._proxy.upstream = ports[PROXIED]
        file = folder / "server.properties"
        lines = dict(line.split("=", 1) for line in file.read_text(encoding="ascii").splitlines())
        lines["listeners"] += f",{_LISTENER}://{HOST}:{ports[PROXIED]}"
        lines["advertised.listeners"] += f",{_LISTENER}://{self._proxy.address}"
        lines["listener.security.protocol.map"] += f",{_LISTENER}:PLAINTEXT"
        # Members that are killed are missed after seconds, where a test's mesh says so.
        lines["group.min.session.timeout.ms"] = "1000"
        file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="ascii")
        return command


class ProxiedStack(EmbeddedStack):
    """The embedded stack with that broker."""

    def __init__(self, state: Path, proxy: Proxy) -> None:
        super().__init__(state, default_store())
        self._kafka = _ProxiedKafka(proxy)


@dataclass(frozen=True)
class Doors:
    """The proxies before a test's servers.

    Attributes:
        kafka: before the broker.
        registry: before the registry.
    """

    kafka: Proxy
    registry: Proxy

    def through(self, mesh: Mesh) -> Mesh:
        """Return the same mesh, product by product and table by table, seen through the proxies."""
        file = mesh.root / "mesh.yaml"
        text = yaml.safe_load(file.read_text(encoding="utf-8"))
        environment = dict(text["environments"][mesh.environment.name])
        environment["kafka"] = {**environment["kafka"], "bootstrap.servers": self.kafka.address}
        url = urlsplit(environment["registry"]["url"])._replace(netloc=self.registry.address).geturl()
        environment["registry"] = {**environment["registry"], "url": url}
        text["environments"][PROXIED] = environment
        file.write_text(yaml.safe_dump(text), encoding="utf-8")
        return load_mesh(mesh.root, environment=PROXIED)


@dataclass(frozen=True)
class Proxied:
    """Running servers, how to come to them, and how to break the way.

    Attributes:
        stack: the servers' processes.
        cluster: the servers themselves.
        doors: the proxies before them.
    """

    stack: ProxiedStack
    cluster: Cluster
    doors: Doors
