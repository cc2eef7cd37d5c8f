"""Commands of the platform: ``check``, ``up``, ``down``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import typer

from headrace.selfserve.commands import epilog, session_of
from headrace.selfserve.output import progress, say

app = typer.Typer()


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
