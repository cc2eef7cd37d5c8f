"""``headrace``: the command line. The only place that prints and exits.

Exit status: 0 done; 1 it failed, or a fault was found; 2 the command line is wrong; 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from headrace.schemas.errors import Bug, HeadraceError, UsageError
from headrace.selfserve.commands import (
    FAILED,
    INTERRUPTED,
    WRONG_USAGE,
    Session,
    build,
    check,
    data,
    dlq,
    export,
    govern,
    operate,
    platform,
    resources,
    rewind,
    status,
    subscribe,
    upkeep,
)
from headrace.selfserve.crash import keep_crash, place_of
from headrace.selfserve.output import say, show_error

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "main", "run"]


class Commands(TyperGroup):
    """Runs a command and shows its errors: a traceback is for ``--debug`` alone."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's own context is the one that comes
        """Run the command; an error becomes a text on stderr and exit status 1; a wrong command line 2."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame: whatever comes here is shown, not swallowed
            session = ctx.obj if isinstance(ctx.obj, Session) else Session(None, None, debug=True)
            if session.debug:
                traceback.print_exc()
            show_error(_told(error, session))
            raise typer.Exit(WRONG_USAGE if isinstance(error, UsageError) else FAILED) from None


app = typer.Typer(
    name="headrace",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        say(f"headrace {version('headrace')}", file=sys.stdout)
        raise typer.Exit


# Typer reads a command's annotations when it runs: these names must be there then.
MeshFolder = Annotated[
    Path | None,
    typer.Option(
        "--mesh", metavar="DIR", envvar="HEADRACE_MESH", help="The mesh's folder; else found from here upwards."
    ),
]
EnvironmentName = Annotated[
    str | None,
    typer.Option(metavar="NAME", envvar="HEADRACE_ENVIRONMENT", help="An environment of mesh.yaml; else embedded."),
]


@app.callback(epilog="headrace COMMAND --help says more, with examples.")
def headrace(
    context: typer.Context,
    mesh: MeshFolder = None,
    environment: EnvironmentName = None,
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show an error's traceback, which may show data.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """An event-driven data mesh: contracts, Kafka topics, and Iceberg tables that follow them exactly once.

    The usual way through: init, check, up, apply; publish, sink; sql, verify; down.
    """
    context.obj = Session(mesh, environment, debug)


for commands in (
    build,
    check,
    platform,
    resources,
    status,
    data,
    subscribe,
    export,
    operate,
    upkeep,
    dlq,
    rewind,
    govern,
):
    app.add_typer(commands.app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Args:
        arguments: what stands behind ``headrace``; None: the process's own.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="headrace")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else FAILED
    else:
        status = 0
    if status == INTERRUPTED:
        say("interrupted")
    return status


def run() -> NoReturn:
    """Run the process's command line and exit with its status: the entry point of the console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file of ours is UTF-8 wherever it was written; a terminal shows what it can.
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="backslashreplace")
        else:
            sys.stdout.reconfigure(encoding="utf-8")
    status = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`headrace sql … | head`); at exit, Python would complain about what it cannot write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _told(error: Exception, session: Session) -> HeadraceError:
    """Return what a person is told of an error."""
    if isinstance(error, HeadraceError) and not isinstance(error, Bug):
        return error
    if isinstance(error, OSError):
        return HeadraceError(
            error.strerror or type(error).__name__,
            where=None if error.filename is None else str(error.filename),
            hint="see that the file is there, may be read or written, and that its disk has room",
        )
    what = error.what if isinstance(error, Bug) else f"{type(error).__name__} in {place_of(error)}"
    kept = keep_crash(error, session.folder)
    return Bug(
        f"this is a bug of headrace: {what}",
        where=f"{kept} (frames only, no data)" if kept else None,
        hint="report it with that file; headrace --debug COMMAND shows all of it, data too",
    )


if __name__ == "__main__":
    run()
