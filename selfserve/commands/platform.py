"""Commands of the platform: ``check``, ``up``, ``down``, ``apply``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from headrace.selfserve.commands import FAILED, epilog, session_of
from headrace.selfserve.output import progress, say, visible

if TYPE_CHECKING:
    from collections.abc import Sized

app = typer.Typer()


@app.command(epilog=epilog("headrace check", ok="no faults", failed="the mesh has faults"))
def check(context: typer.Context) -> None:
    """Check the mesh's files: contracts, schemas, masks, names.

    Reads files only, needs no server and no secret, and shows all faults in one run.
    """
    mesh = session_of(context).mesh()
    say(f"mesh {mesh.name}: {_count(mesh.domains, 'domain')}, {_count(mesh.products, 'product')}, no faults")


@app.command(epilog=epilog("headrace up", ok="both servers answer", failed="a server did not start; its log is named"))
def up(context: typer.Context) -> None:
    """Start Kafka and the schema registry of the environment.

    Returns when both answer. What runs already is left as it is; a server that crashed is started again with its data.
    The first start fetches the servers into the user's cache. They go on running until `headrace down`.
    """
    from headrace.selfserve.stack import stack_of

    environment = session_of(context).mesh().environment
    with progress("starting") as tell:
        endpoints = stack_of(environment).up(progress=tell)
    say(f"kafka     {endpoints.bootstrap_servers}")
    say(f"registry  {endpoints.registry_url}")


@app.command(epilog=epilog("headrace down", ok="nothing runs any more", failed="a server could not be stopped"))
def down(context: typer.Context) -> None:
    """Stop what `headrace up` started. Topics, schemas and tables stay as they are."""
    from headrace.selfserve.stack import stack_of

    environment = session_of(context).mesh().environment
    with progress("stopping") as tell:
        stack_of(environment).down(tell)
    say("stopped")


@app.command(
    epilog=epilog(
        "headrace apply", ok="everything that the files promise is there", failed="a product is held, or it failed"
    )
)
def apply(context: typer.Context) -> None:
    """Make what the files promise: topics, schemas, tables.

    A second run changes nothing. Nothing is ever deleted. Schemas are registered here alone, never by a producer. What
    is held stays as it is until it is released.
    """
    from headrace.selfserve.apply import apply as apply_mesh

    mesh = session_of(context).mesh()
    with progress("applying") as tell:
        applied = apply_mesh(mesh, tell)
    for warning in applied.warnings:
        say(f"warning: {visible(warning)}")
    say(f"{len(applied.made)} made or changed, {applied.found} there already")
    if applied.held:
        raise typer.Exit(FAILED)


def _count(things: Sized, noun: str) -> str:
    return f"{len(things)} {noun}{'s' if len(things) != 1 else ''}"
