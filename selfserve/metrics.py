"""What a long-running process tells its surroundings over HTTP: metrics for Prometheus, and its health.

======== ==================================================================================================
/metrics the process's registry of metrics, in Prometheus' text format or as OpenMetrics, as the client asks
/healthz 200 while the process does its work; 503 once a bug has stopped a part of it, or a thread has died
/readyz  200 while every part has begun and waits for nothing; 503 with what is waited for, and what stopped
======== ==================================================================================================

Answers come from memory: a request never waits for a server or a disk. Neither labels nor reasons hold values of
events or secrets.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Info, ProcessCollector, make_wsgi_app

from headrace.schemas.errors import Bug, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIEnvironment

    from headrace.schemas.errors import HeadraceError

__all__ = ["LOCAL", "Endpoint", "Health", "Reason", "new_registry"]

# Metrics and health are for this machine unless an operator says otherwise: the pages know no passwords.
LOCAL = "127.0.0.1"
# A client that does not say what it wants within this is let go.
_PATIENCE_S = 10.0
_JSON = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a part of a process is not as it should be: the part (a product, a thread), and an error's three texts."""

    part: str
    what: str
    where: str | None = None
    next: str | None = None

    @classmethod
    def of(cls, part: str, error: HeadraceError) -> Reason:
        """Return the reason that an error is."""
        return cls(part, error.what, error.where, error.hint)


class Health:
    """How the parts of a process are. Safe for several threads.

    Args:
        parts: names of the parts that must begin before the process is ready.
    """

    def __init__(self, parts: Iterable[str] = ()) -> None:
        self._lock = Lock()
        self._waits = {part: Reason(part, "has not begun yet") for part in parts}
        self._stopped: dict[str, Reason] = {}
        self._broken: dict[str, Reason] = {}
        self._threads: list[Thread] = []

    def running(self, part: str) -> None:
        """A part works and waits for nothing; also one that had stopped on a fault which was mended."""
        with self._lock:
            self._waits.pop(part, None)
            self._stopped.pop(part, None)

    def waiting(self, part: str, error: HeadraceError) -> None:
        """A part waits for what the error names."""
        with self._lock:
            self._waits[part] = Reason.of(part, error)
            self._stopped.pop(part, None)

    def ended(self, part: str, fault: HeadraceError | None = None) -> None:
        """A part works no more: as it was told (None), or on a fault; a `Bug` makes the process unhealthy."""
        with self._lock:
            self._waits.pop(part, None)
            if fault is not None:
                (self._broken if isinstance(fault, Bug) else self._stopped)[part] = Reason.of(part, fault)

    def watch(self, thread: Thread) -> None:
        """Let the process count as unhealthy once this thread does not run."""
        with self._lock:
            self._threads.append(thread)

    def broken(self) -> tuple[Reason, ...]:
        """Return what makes the process unhealthy: a supervisor should start it anew."""
        with self._lock:
            dead = (Reason(thread.name, "the thread has died") for thread in self._threads if not thread.is_alive())
            return (*self._broken.values(), *dead)

    def unready(self) -> tuple[Reason, ...]:
        """Return what keeps the process from being ready, what makes it unhealthy included."""
        broken = self.broken()
        with self._lock:
            return (*broken, *self._stopped.values(), *self._waits.values())


def new_registry() -> CollectorRegistry:
    """Return a registry with what is told of every process: its version, memory, CPU time and open files."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    Info("headrace_build", "The version of headrace.", registry=registry).info({"version": version("headrace")})
    return registry


class Endpoint:
    """The HTTP server: listening from the beginning, answering while it is a context.

    Args:
        registry: the metrics.
        health: the health.
        host: the address to listen at.
        port: the port; 0: a free one.

    Raises:
        UserError: if it cannot listen there.
    """

    def __init__(self, registry: CollectorRegistry, health: Health, *, host: str = LOCAL, port: int = 0) -> None:
        try:
            family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]

            class Server(_Server):
                address_family = family

            self._server: WSGIServer = make_server(
                str(place[0]), port, _application(registry, health), Server, _Handler
            )
        except (OSError, OverflowError, UnicodeError) as error:
            raise UserError(
                f"metrics cannot be served: {getattr(error, 'strerror', None) or error}",
                where=f"{host}:{port}",
                hint="choose another port with --metrics-port (0: a free one), or an address of this machine",
            ) from None
        self._thread = Thread(target=self._server.serve_forever, name="metrics-http", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        host, port = self._server.server_name, self._server.server_port
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each request; none of them keeps the process."""

    daemon_threads = True

    def server_bind(self) -> None:
        # The library's own asks the network for this machine's name, which may take long.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error."""


class _Handler(WSGIRequestHandler):
    """A request. Nothing is logged: probes come every few seconds."""

    timeout = _PATIENCE_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the library calls it by
        """Log nothing."""


def _application(
    registry: CollectorRegistry, health: Health
) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    metrics: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]] = make_wsgi_app(registry)

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return metrics(environ, start)
            case "/healthz":
                return _tell(start, health.broken())
            case "/readyz":
                return _tell(start, health.unready())
            case _:
                return _send(start, HTTPStatus.NOT_FOUND, {"paths": ["/metrics", "/healthz", "/readyz"]})

    return answer


def _tell(start: StartResponse, reasons: tuple[Reason, ...]) -> Iterable[bytes]:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    told = [{"part": each.part, "what": each.what, "where": each.where, "next": each.next} for each in reasons]
    return _send(start, status, {"ok": not reasons, "reasons": told})


def _send(start: StartResponse, status: HTTPStatus, document: Mapping[str, object]) -> Iterable[bytes]:
    body = json.dumps(document).encode() + b"\n"
    start(f"{status.value} {status.phrase}", [("Content-Type", _JSON), ("Content-Length", str(len(body)))])
    return [body]
