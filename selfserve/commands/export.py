"""The command that writes a product's documents: ``export``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headrace.selfserve.commands import epilog, session_of
from headrace.selfserve.exports.formats import ExportFormat
from headrace.selfserve.output import say

app = typer.Typer()

# Typer reads a command's annotations when it runs: this name must be there then.
Output = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where it is written; a file there is replaced. Else stdout.")
]


@app.command(
    epilog=epilog(
        "headrace export shop.orders --format markdown",
        "headrace --environment production export shop.orders --format asyncapi --output orders.asyncapi.yaml",
    )
)
def export(
    context: typer.Context,
    product: Annotated[str, typer.Argument(metavar="DOMAIN.PRODUCT", help="The product.")],
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="odcs: its whole contract, with all that the schema says; asyncapi: its topic and messages; "
            "avro: its schema, as it is registered; markdown: a page for people.",
        ),
    ] = ExportFormat.ODCS,
    output: Output = None,
) -> None:
    """Write a product down for other tools and for people.

    Reads the mesh's files alone: no server, no secret. The addresses are the environment's; where headrace runs the
    servers there are none that others can reach. The odcs document can stand in the contract's place.
    """
    from headrace.selfserve.exports.product import exported

    mesh = session_of(context).mesh()
    text = exported(mesh, mesh.product(product), form)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
        say(f"wrote {product} as {form} to {output}")
