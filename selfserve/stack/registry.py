"""Apicurio Registry, which speaks the API of Confluent's schema registry under ``/apis/ccompat/v7``."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from headrace.selfserve.stack.ports import HOST, listens
from headrace.selfserve.stack.server import JAVA_OPTIONS, properties

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headrace.selfserve.stack.artefacts import Programs

PORT = "http"
API = "/apis/ccompat/v7"
ANSWER_TIMEOUT_S = 5.0

# What docker-compose.yml sets as well (a test compares them).
SETTINGS: Mapping[str, str] = {
    "apicurio.storage.kind": "sql",
    "apicurio.storage.sql.kind": "h2",
    # Confluent's registry starts with BACKWARD, Apicurio with no rule at all. It is the default only: a level that
    # somebody sets stays.
    "apicurio.rules.global.compatibility": "BACKWARD",
    # Subjects and versions can be deleted, as with Confluent's registry.
    "apicurio.rest.deletion.artifact.enabled": "true",
    "apicurio.rest.deletion.artifact-version.enabled": "true",
    # A pool for a few clients; the default opens twenty connections before the first request.
    "apicurio.datasource.jdbc.initial-size": "1",
    "apicurio.datasource.jdbc.min-size": "1",
    "apicurio.datasource.jdbc.max-size": "20",
    "quarkus.http.access-log.enabled": "false",
    "quarkus.log.console.format": "%d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %c{1.}: %s%e%n",
}


class Registry:
    """The embedded registry. It keeps its database in the file ``registry.mv.db``."""

    name = "registry"
    port_names = (PORT,)

    def prepare(self, programs: Programs, folder: Path, ports: Mapping[str, int]) -> list[str]:
        """Write the settings and return Java's arguments."""
        config = folder / "config"
        config.mkdir(exist_ok=True)
        (config / "application.properties").write_text(properties(settings(ports)), encoding="ascii")
        return [*JAVA_OPTIONS, "-Xmx256m", "-jar", str(programs.registry_home / "quarkus-run.jar")]

    def answers(self, folder: Path, ports: Mapping[str, int]) -> bool:  # noqa: ARG002 - Server's signature
        """Return whether the compatibility API reads its database."""
        return serves(ports[PORT])


def settings(ports: Mapping[str, int]) -> dict[str, str]:
    """Return the registry's ``application.properties``. Its database is relative to the working folder."""
    return {
        **SETTINGS,
        # WRITE_DELAY=0: an acknowledged schema is on disk. Without it a kill loses those of the last half second.
        "apicurio.datasource.url": "jdbc:h2:file:./registry;WRITE_DELAY=0",
        "quarkus.http.host": HOST,
        "quarkus.http.port": str(ports[PORT]),
        # Nobody asks the management interface, which cannot be left out: any free port of this machine alone.
        "quarkus.management.host": HOST,
        "quarkus.management.port": "0",
    }


def serves(port: int) -> bool:
    """Ask the registry on a port of this machine once for its global level."""
    if not listens(port):
        return False
    # The standard library's client, because it knows of no proxy: this server is on this machine.
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", f"{API}/config")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def url(port: int) -> str:
    """Return the URL for Confluent's registry clients."""
    return f"http://{HOST}:{port}{API}"
