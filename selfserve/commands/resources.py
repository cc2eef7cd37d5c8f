"""Commands that compare the files with what is there: ``plan``, ``apply``, ``drift``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.selfserve.commands import DIFFERS, FAILED, epilog, session_of
from headrace.selfserve.output import LogFormat, error_text, progress, say, visible

if TYPE_CHECKING:
    from headrace.selfserve.plan import Plan

app = typer.Typer()

Form = Annotated[LogFormat, typer.Option("--format", help="text for people, json for programs.")]


@app.command(
    epilog=epilog(
        "headrace plan",
        "headrace plan --format json",
        ok="nothing to do",
        failed="the mesh has faults, or not all of it could be compared",
        differs="something to do, for apply or for you; or the command line is wrong",
    )
)
def plan(context: typer.Context, *, form: Form = LogFormat.TEXT) -> None:
    """Show what apply would make and change.

    For each product: + what is missing, ~ what is otherwise (there → files), - what is lost by it, which apply does
    only with --allow-destroy, and ! what apply does not do, with the reason and the next step. Changes nothing.
    """
    from headrace.selfserve.differences_view import show_plan
    from headrace.selfserve.plan import plan as plan_mesh

    found = plan_mesh(session_of(context).mesh())
    show_plan(found, sys.stdout, as_json=form is LogFormat.JSON)
    _end(found)


@app.command(
    epilog=epilog(
        "headrace apply",
        "headrace apply --allow-destroy shop.returns",
        ok="everything that the files promise is there",
        failed="something was not done, or failed; the others are done",
    )
)
def apply(
    context: typer.Context,
    *,
    allow_destroy: Annotated[
        list[str] | None,
        typer.Option(metavar="PRODUCT", help="Events of this product, or all of it, may be lost; more than once."),
    ] = None,
) -> None:
    """Make what the files promise: topics, schemas, tables.

    Does what plan shows. A second run changes nothing, and one that was broken off goes on where it ended. Nothing is
    lost unless its product is named with --allow-destroy: a shorter retention, a cleanup policy that deletes more, a
    product that was taken out of the files. Schemas are registered here alone, never by a producer. What is held stays
    as it is until it is released.
    """
    from headrace.selfserve.apply import apply_each

    mesh = session_of(context).mesh()
    with progress("applying") as tell:
        applied = apply_each(mesh, tell, tuple(allow_destroy or ()))
    for warning in applied.warnings:
        say(f"warning: {visible(warning)}")
    for name, failure in applied.failures:
        say(f"{visible(name)} failed:")
        say(error_text(failure))
    say(f"{len(applied.made)} made or changed, {applied.found} there already")
    if not applied.complete:
        raise typer.Exit(FAILED)


@app.command(
    epilog=epilog(
        "headrace drift",
        "headrace drift --format json",
        ok="everything is as the files say",
        failed="the mesh has faults, or not all of it was seen",
        differs="something differs; or the command line is wrong",
    )
)
def drift(context: typer.Context, *, form: Form = LogFormat.TEXT) -> None:
    """Show what is there and not in the files.

    And the other way round: what Kafka, the registry and the catalogs lack. Sees also what nobody has asked for:
    schemas registered past apply, columns that other engines have added, topics, subjects and tables that belong to no
    product. Each with what to do next. Changes nothing.
    """
    from headrace.selfserve.differences_view import show_drift
    from headrace.selfserve.drift import drift as drift_of

    found = drift_of(session_of(context).mesh())
    show_drift(found, sys.stdout, as_json=form is LogFormat.JSON)
    _end(found)


def _end(found: Plan) -> None:
    if found.troubles:
        raise typer.Exit(FAILED)
    if found.differences:
        raise typer.Exit(DIFFERS)
