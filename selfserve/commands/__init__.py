"""The commands of ``headrace``. What a command needs is imported when it runs, so that help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.errors import Bug

if TYPE_CHECKING:
    from pathlib import Path

    import typer

    from headrace.schemas.mesh import Mesh

__all__ = ["Session", "epilog", "session_of"]

# What a command ends with.
OK = 0
FAILED = 1
WRONG_USAGE = 2
# Of `plan` and `drift`, as of diff(1) and of other tools that plan: something differs. What stands on stderr tells it
# from a wrong command line.
DIFFERS = 2
INTERRUPTED = 130

_CODES = {
    OK: "done",
    FAILED: "it failed; the error says why",
    WRONG_USAGE: "the command line is wrong",
    INTERRUPTED: "interrupted with Ctrl-C",
}


@dataclass(frozen=True, slots=True)
class Session:
    """What stands before the command: which mesh, which environment, how errors are shown.

    Attributes:
        folder: the mesh's folder or one below it; None: the working folder.
        environment: the environment's name; None: the mesh's default.
        debug: show tracebacks, messages of foreign errors included.
    """

    folder: Path | None
    environment: str | None
    debug: bool

    def mesh(self) -> Mesh:
        """Load the mesh.

        Raises:
            UserError: if there is none, or its files have faults.
        """
        from headrace.schemas.mesh import load_mesh  # noqa: PLC0415 - help needs no mesh

        return load_mesh(self.folder, environment=self.environment)


def session_of(context: typer.Context) -> Session:
    """Return the session that the options before the command made."""
    session = context.find_object(Session)
    if session is None:
        raise Bug("a command was started without the options before it")
    return session


def epilog(*examples: str, **meanings: str) -> str:
    """Return the end of a command's help: examples, and what its exit status means.

    Args:
        examples: command lines that work as they stand.
        meanings: by ``ok``, ``failed`` and ``differs``: what 0, 1 and 2 mean for this command, where the usual words
            say too little.
    """
    numbers = {"ok": OK, "failed": FAILED, "differs": DIFFERS}
    codes = {**_CODES, **{numbers[name]: text for name, text in meanings.items()}}
    # \b keeps a paragraph's lines as they are.
    blocks = [
        ["\b", "Examples:" if len(examples) > 1 else "Example:", *(f"  {example}" for example in examples)],
        ["\b", "Exit status:", *(f"  {code:<5}{meaning}" for code, meaning in codes.items())],
    ]
    return "\n\n".join("\n".join(block) for block in blocks)
