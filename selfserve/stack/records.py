"""What a stack remembers between commands: its servers' ports and processes, and the addresses others connect to."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.schemas.environment import ENDPOINTS_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.selfserve.stack import Endpoints

# Start times are derived from the wall clock, so a clock that is set between two readings moves them. Two processes
# with one pid within two seconds would need the whole pid space to turn over in that time.
CLOCK_SLACK_S = 2.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this machine: a pid alone is given to strangers later, with its start time it is one process.

    ``started_at`` is in seconds since 1970.
    """

    pid: int
    started_at: float

    def is_same(self, other: Process | None) -> bool:
        """Return whether both are one process."""
        return other is not None and self.pid == other.pid and abs(self.started_at - other.started_at) <= CLOCK_SLACK_S


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one server.

    ``process`` is None while it is stopped on purpose; ``ends_with`` is the process whose end ends it, None: it stays.
    """

    ports: Mapping[str, int] = field(default_factory=dict)
    process: Process | None = None
    ends_with: Process | None = None

    def stopped(self) -> Record:
        """Return the record of the same server, stopped on purpose; its ports are remembered."""
        return Record(ports=self.ports)


class State:
    """The state folder of one environment, as its stack uses it.

    ``servers.json`` holds the records, ``endpoints.json`` the addresses. Both name the folder they belong to. Both
    are written under the lock and replaced as a whole, so a reader without the lock sees one version of each.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._records = self.folder / "servers.json"
        self._endpoints = self.folder / ENDPOINTS_FILE

    @property
    def lock(self) -> Path:
        """The file whose lock is held while a stack is started or stopped."""
        return self.folder / "stack.lock"

    def home(self, server: str) -> Path:
        """Return the folder of a server's data, its working folder."""
        return self.folder / server

    def log(self, server: str) -> Path:
        """Return the file of a server's output."""
        return self.folder / "logs" / f"{server}.log"

    def records(self) -> dict[str, Record]:
        """Return the records by server name: none if the file is missing or is not one of ours."""
        try:
            raw = json.loads(self._records.read_text(encoding="utf-8"))
            # In a copied mesh the records still name the original's servers, which are not this mesh's to stop.
            if raw["folder"] != str(self.folder):
                return {}
            return {name: _record(value) for name, value in raw["servers"].items()}
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            # A lost record costs little: the ports are chosen anew, and the processes are found by their command line.
            return {}

    def record(self, server: str) -> Record:
        """Return the record of one server, an empty one before its first start."""
        return self.records().get(server, Record())

    def write_record(self, server: str, record: Record) -> None:
        """Replace one server's record."""
        records = self.records() | {server: record}
        servers = {name: _plain(value) for name, value in records.items()}
        write_json(self._records, {"folder": str(self.folder), "servers": servers})

    def write_endpoints(self, endpoints: Endpoints) -> None:
        """Publish the addresses of a stack that answers."""
        write_json(
            self._endpoints,
            {
                "folder": str(self.folder),
                "bootstrap.servers": endpoints.bootstrap_servers,
                "registry.url": endpoints.registry_url,
            },
        )

    def remove_endpoints(self) -> None:
        """Withdraw the addresses: from now on the environment says that its stack is down."""
        self._endpoints.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file as a whole: after a crash it holds the old or the new text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _record(raw: Mapping[str, Any]) -> Record:
    return Record(
        ports={str(name): int(port) for name, port in raw["ports"].items()},
        process=_process(raw["process"]),
        ends_with=_process(raw["ends_with"]),
    )


def _process(raw: Mapping[str, Any] | None) -> Process | None:
    return None if raw is None else Process(int(raw["pid"]), float(raw["started_at"]))


def _plain(record: Record) -> dict[str, Any]:
    def plain(process: Process | None) -> dict[str, Any] | None:
        return None if process is None else {"pid": process.pid, "started_at": process.started_at}

    return {"ports": dict(record.ports), "process": plain(record.process), "ends_with": plain(record.ends_with)}
