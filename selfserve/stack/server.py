"""What the embedded stack has to know about one kind of server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headrace.selfserve.stack.artefacts import Programs

# For both servers: the fast compiler alone and the smallest collector shorten the start and save memory; a server that
# is out of memory ends and says so; and Java stops warning of native libraries that these programs have always loaded.
JAVA_OPTIONS = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)


class Server(Protocol):
    """One kind of server. Its folder is its working folder, so that its settings hold no path of this machine."""

    @property
    def name(self) -> str:
        """Its name for people, folders and records."""
        ...

    @property
    def port_names(self) -> tuple[str, ...]:
        """The ports it needs; clients connect to the first."""
        ...

    def prepare(self, programs: Programs, folder: Path, ports: Mapping[str, int]) -> list[str]:
        """Write its settings into its folder, make its storage if there is none, and return Java's arguments.

        Raises:
            Unavailable: the storage could not be made.
        """
        ...

    def answers(self, folder: Path, ports: Mapping[str, int]) -> bool:
        """Ask it once, within a few seconds, whether it serves clients: this server, not another one on its port."""
        ...


def properties(settings: Mapping[str, str]) -> str:
    """Return settings as a Java properties file. Names and values are plain ASCII without line breaks."""
    return "".join(f"{name}={value}\n" for name, value in settings.items())
