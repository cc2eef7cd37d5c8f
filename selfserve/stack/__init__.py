"""The servers of an environment that headrace starts itself: a Kafka broker and a schema registry.

A stack belongs to one environment of one mesh and keeps everything it knows in that environment's state folder, so that
two meshes on one machine do not meet. ``endpoints.json`` in that folder is its only interface to the rest of headrace:
it appears when both servers have answered, and goes before either is stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from headrace.schemas.errors import UserError

if TYPE_CHECKING:
    from headrace.schemas.environment import Environment

Progress = Callable[[str], None]
"""Takes one line for people about what has just begun or ended; it never holds a secret."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the servers of a running stack answer."""

    bootstrap_servers: str
    registry_url: str


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of one server without asking it anything.

    ``crashed`` means that it was started, was never told to stop, and does not run. ``address`` is empty until the
    first start; ``log`` is a file's path, or the command that shows the log.
    """

    name: str
    state: Literal["running", "stopped", "crashed"]
    pid: int | None
    address: str
    log: str


class Stack(Protocol):
    """The servers of one environment. Its methods may be called from several processes at once."""

    def up(self, *, die_with_parent: bool = False, progress: Progress) -> Endpoints:
        """Start what does not run and return when both servers answer; what runs is left as it is.

        Args:
            die_with_parent: end the servers started here when this process ends, however it ends. Servers that run
                already keep the life they were started with.
            progress: is told what is fetched, started and ready.

        Raises:
            UserError: this environment's servers cannot be started here, with what to change.
            Unavailable: a download or a server failed; nothing that this call started is left running.
        """
        ...

    def down(self, progress: Progress) -> None:
        """Stop both servers and keep their data. Stopping a stopped stack is no error."""
        ...

    def status(self) -> tuple[ServerStatus, ...]:
        """Return the state of every server, without starting or stopping anything."""
        ...


class ExternalStack:
    """Servers that are somebody else's: headrace connects to them and neither starts nor stops them."""

    def __init__(self, environment: str) -> None:
        self._environment = environment

    def up(self, *, die_with_parent: bool = False, progress: Progress) -> Endpoints:  # noqa: ARG002 - Stack's signature
        """Refuse.

        Raises:
            UserError: always.
        """
        raise self._refusal("start")

    def down(self, progress: Progress) -> None:  # noqa: ARG002 - Stack's signature
        """Refuse.

        Raises:
            UserError: always.
        """
        raise self._refusal("stop")

    def status(self) -> tuple[ServerStatus, ...]:
        """Return nothing: headrace has no servers here."""
        return ()

    def _refusal(self, verb: str) -> UserError:
        return UserError(
            f"the servers of environment {self._environment!r} are not headrace's to {verb}",
            where="mesh.yaml",
            hint="its stack is external; choose an environment whose stack is embedded or compose",
        )


def stack_of(environment: Environment) -> Stack:
    """Return the stack that an environment of ``mesh.yaml`` names. Nothing is started, fetched or written."""
    # Imported here because the supervisor, which stays in memory beside the servers, imports this package and needs
    # neither a Kafka client nor a download.
    from headrace.selfserve.stack.compose import compose_stack  # noqa: PLC0415
    from headrace.selfserve.stack.embedded import embedded_stack  # noqa: PLC0415

    if environment.stack == "embedded":
        return embedded_stack(environment.state)
    if environment.stack == "compose":
        return compose_stack(environment.state)
    return ExternalStack(environment.name)
