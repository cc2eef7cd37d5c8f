"""The compose stack: the same servers in containers, by Docker Compose through testcontainers.

``docker-compose.yml`` says what runs. Each environment has a Compose project of its own, named after its state folder,
with volumes and ports of its own, so two meshes on one machine do not meet. The volumes outlive ``down``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING

from headrace.schemas.errors import HeadraceError, Unavailable, UserError
from headrace.selfserve.stack import Endpoints, ServerStatus, kafka, processes, registry
from headrace.selfserve.stack.launcher import LOOK_INTERVAL_S, READY_TIMEOUT_S
from headrace.selfserve.stack.locks import disk_errors, held
from headrace.selfserve.stack.ports import HOST, choose
from headrace.selfserve.stack.records import Record, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from testcontainers.compose import ComposeContainer, DockerCompose

    from headrace.selfserve.stack import Progress
    from headrace.selfserve.stack.records import Process

FILE = Path(__file__).with_name("docker-compose.yml")
# The file's services, and the variable that holds the port each is published on.
PORT_VARIABLES: Mapping[str, str] = {"kafka": "HEADRACE_KAFKA_PORT", "registry": "HEADRACE_REGISTRY_PORT"}
PORT = "published"
# Another start may hold the lock while it pulls its images over a slow line.
LOCK_TIMEOUT_S = 1800.0


class ComposeStack:
    """Kafka and the registry of one environment in containers.

    Args:
        state: the environment's folder.
        file: the Compose file.
    """

    def __init__(self, state: Path, file: Path = FILE) -> None:
        self._state = State(state)
        self._file = file

    def up(self, *, die_with_parent: bool = False, progress: Progress) -> Endpoints:
        """Start what does not run, and return when both servers answer. See ``Stack.up``."""
        with self._locked(progress):
            running = self._running()
            ports = self._ports(running)
            self._write_variables(ports)
            if len(running) < len(PORT_VARIABLES):
                self._state.remove_endpoints()
                owner = processes.this_process() if die_with_parent else None
                if owner:
                    processes.supervise("compose", self._state, owner)
                for service, port in ports.items():
                    life = self._state.record(service).ends_with if service in running else owner
                    self._state.write_record(service, Record({PORT: port}, ends_with=life))
                self._start(progress, running)
            else:
                progress("kafka and registry run already")
            self._await(ports)
            endpoints = Endpoints(f"{HOST}:{ports['kafka']}", registry.url(ports["registry"]))
            self._state.write_endpoints(endpoints)
        return endpoints

    def down(self, progress: Progress) -> None:
        """Stop both containers and keep their volumes. See ``Stack.down``."""
        if not self._variables.exists():
            progress("nothing runs")
            return
        with self._locked(progress):
            progress("stopping kafka and registry")
            self.stop()

    def stop(self) -> None:
        """Stop both containers, under the lock.

        Raises:
            Unavailable: the engine did not do it; the message is its own.
        """
        self._state.remove_endpoints()
        with _engine_errors():
            self._compose().stop(down=False)
        for service in PORT_VARIABLES:
            self._state.write_record(service, self._state.record(service).stopped())

    def status(self) -> tuple[ServerStatus, ...]:
        """Return what the engine says of the containers. See ``Stack.status``."""
        containers = self._containers() if self._variables.exists() else {}
        return tuple(self._status(service, containers.get(service)) for service in PORT_VARIABLES)

    def _start(self, progress: Progress, running: set[str]) -> None:
        progress("starting kafka and registry in containers; their images are pulled at the first start")
        begun = time.monotonic()
        try:
            with _engine_errors():
                self._compose().start()
        except BaseException:
            # Nothing that this call started is left running, not even at a Ctrl-C; what ran before it goes on.
            started = sorted(PORT_VARIABLES.keys() - running)
            with suppress(HeadraceError), _engine_errors():
                self._compose(started).stop(down=False)
            for service in started:
                self._state.write_record(service, self._state.record(service).stopped())
            raise
        progress(f"containers started in {time.monotonic() - begun:.1f} s")

    def _await(self, ports: Mapping[str, int]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (registry.serves(ports["registry"]) and kafka.served_cluster(ports["kafka"])):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the containers run, but do not both answer after {READY_TIMEOUT_S:.0f} s",
                    where=", ".join(f"{HOST}:{port}" for port in ports.values()),
                    hint=f"see {self._log_command('kafka')} and {self._log_command('registry')}",
                )
            time.sleep(LOOK_INTERVAL_S)

    def _status(self, service: str, container: ComposeContainer | None) -> ServerStatus:
        port = self._state.record(service).ports.get(PORT)
        address = f"{HOST}:{port}" if port else ""
        log = self._log_command(service)
        if container is not None and container.State == "running":
            return ServerStatus(service, "running", None, address, log)
        # 137 and 143: ended by a signal, as `docker compose stop` does. "created" has the code 0.
        stopped = container is None or container.ExitCode in {0, 137, 143}
        return ServerStatus(service, "stopped" if stopped else "crashed", None, address, log)

    def _running(self) -> set[str]:
        if not self._variables.exists():
            return set()
        return {service for service, container in self._containers().items() if container.State == "running"}

    def _containers(self) -> dict[str, ComposeContainer]:
        with _engine_errors():
            return {str(found.Service): found for found in self._compose().get_containers(include_all=True)}

    def _ports(self, running: set[str]) -> dict[str, int]:
        remembered = {service: self._state.record(service).ports.get(PORT) for service in PORT_VARIABLES}
        known = {service: port for service, port in remembered.items() if port is not None}
        # A running container's port is not free because the container itself holds it.
        kept = {service: known[service] for service in running if service in known}
        return {**choose(list(PORT_VARIABLES), known), **kept, **_given_ports()}

    def _write_variables(self, ports: Mapping[str, int]) -> None:
        lines = [f"HEADRACE_PROJECT={self._project}"]
        lines += [f"{variable}={ports[service]}" for service, variable in PORT_VARIABLES.items()]
        self._variables.parent.mkdir(parents=True, exist_ok=True)
        self._variables.write_text("\n".join(lines) + "\n", encoding="ascii")

    @property
    def _variables(self) -> Path:
        return self._state.folder / "compose.env"

    @property
    def _project(self) -> str:
        return f"headrace-{hashlib.sha256(str(self._state.folder).encode()).hexdigest()[:12]}"

    def _log_command(self, service: str) -> str:
        return f"docker compose -p {self._project} logs {service}"

    def _compose(self, services: list[str] | None = None) -> DockerCompose:
        try:
            # Here, because it belongs to an extra that the embedded stack does without.
            from testcontainers.compose import DockerCompose  # noqa: PLC0415
        except ImportError:
            raise UserError(
                "the compose stack needs testcontainers", hint="pip install 'headrace[compose]', or stack: embedded"
            ) from None
        # It logs what the engine says before it raises; the error shows that to the person once.
        logging.getLogger("testcontainers.compose.compose").setLevel(logging.CRITICAL)
        return DockerCompose(
            context=self._file.parent,
            compose_file_name=str(self._file),
            env_file=str(self._variables),
            services=services,
        )

    @contextmanager
    def _locked(self, progress: Progress) -> Iterator[None]:
        holder = "another headrace starts or stops this stack"
        with disk_errors(), held(self._state.lock, LOCK_TIMEOUT_S, holder, progress):
            yield


def compose_stack(state: Path) -> ComposeStack:
    """Return the compose stack of an environment's state folder."""
    return ComposeStack(state)


def stop_containers_of(state: State, owner: Process) -> None:
    """Stop the containers if they are to end with ``owner``. The stack's lock is held."""
    if any(owner.is_same(record.ends_with) for record in state.records().values()):
        ComposeStack(state.folder).stop()


def _given_ports() -> dict[str, int]:
    given = {service: os.environ[name] for service, name in PORT_VARIABLES.items() if name in os.environ}
    for service, text in given.items():
        if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16):
            raise UserError(
                f"{text!r} is not a port", where=PORT_VARIABLES[service], hint="a number from 1 to 65535, or unset it"
            )
    return {service: int(text) for service, text in given.items()}


@contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(
            "there is no docker command on this machine", hint="install Docker, or choose the embedded stack"
        ) from None
    except CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip() or f"exit code {error.returncode}"
        raise Unavailable(
            f"Docker Compose failed: {said[-2000:]}",
            hint="`docker info` and `docker compose version` show whether there is an engine",
        ) from None
