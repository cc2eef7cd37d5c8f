"""Commands that write files of a mesh: ``init``, ``new``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.selfserve.commands import Session, epilog, session_of
from headrace.selfserve.commands.questions import asked
from headrace.selfserve.kinds import Kind
from headrace.selfserve.output import say

if TYPE_CHECKING:
    from headrace.selfserve.new import Answers, Place

app = typer.Typer()

_NOWHERE = Session(None, None, debug=False)


@dataclass(frozen=True, slots=True)
class Name:
    """A product's name as it was typed, and the session that it was typed in."""

    text: str
    session: Session = _NOWHERE


def _in_session(context: typer.Context, name: Name) -> Name:
    return replace(name, session=session_of(context))


# Typer reads a command's annotations when it runs: these names must be there then.
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")]


@app.command(epilog=epilog("headrace init my-mesh"))
def init(folder: Folder) -> None:
    """Make a small mesh that works, in a new folder.

    It has one domain, one product, ten events to try it with, and a key for the masks. The folder's README.md says what
    lies where. The key stands in .headrace/hmac.key, which git ignores: keep a copy.
    """
    from headrace.selfserve.init import EXAMPLE_EVENTS, EXAMPLE_PRODUCT, EXAMPLE_QUERY, init_mesh

    init_mesh(folder)
    say(f"made a mesh in {folder}: README.md says what lies where")
    steps = [
        f"cd {shlex.quote(str(folder))}",
        "headrace up",
        "headrace apply",
        f"headrace publish {EXAMPLE_PRODUCT} {EXAMPLE_EVENTS}",
        "headrace sink --until-caught-up",
        f'headrace sql "{EXAMPLE_QUERY}"',
    ]
    say(f"next: {' && '.join(steps)}")


@app.command(
    epilog=epilog(
        "headrace new shop/returns",
        "headrace new shop/customers --kind change-stream --key customer_id",
        'headrace new loyalty/points --from shop.orders --key order_id --purpose "Points that an order earns"',
        ok="the product is there, and the mesh passes check",
    )
)
def new(
    product: Annotated[
        Name,
        typer.Argument(
            metavar="DOMAIN/PRODUCT",
            parser=Name,
            callback=_in_session,
            help="Its name; a domain that is not there yet is made.",
        ),
    ],
    *,
    kind: Annotated[
        Kind | None,
        typer.Option(
            help="event: what happened; change-stream: what became of a thing, its state after each change; derived: "
            "what follows from other products. Else event, or derived with --from."
        ),
    ] = None,
    owner: Annotated[
        str | None, typer.Option(metavar="TEAM", help="Who answers for it; else the domain's owner.")
    ] = None,
    purpose: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for, in a sentence.")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="FIELD", help="The field whose events must stay in order; else id.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="PRODUCT", help="A product that it is derived from; may be given again."),
    ] = None,
) -> None:
    """Add a product to the mesh, which passes check as it is.

    Writes contract, schema and README.md, and the domain if it is new. On a terminal it asks for what is left out.
    Elsewhere that is as usual, or a sentence in the files asks for it. If anything is wrong, nothing is written.
    The contract is a draft: it is checked and applied like any other, and what headrace exports says so.
    """
    from headrace.selfserve.new import Answers, place_of

    session = product.session
    place = place_of(product.text, session.folder, environment=session.environment)
    answers = Answers(owner=owner, purpose=purpose, key=key, inputs=inputs or (), kind=kind)
    if sys.stdin.isatty() and sys.stderr.isatty():
        answers = _asked(place, answers)
    mesh = place.write(answers)
    made = mesh.product(place.name)
    folder = place.folder.relative_to(place.root)
    say(f"made {made.name} in {folder}; mesh {mesh.name} has no faults")
    say(f"  schema.avsc         its fields: {', '.join(field.name for field in made.schema.record.fields)}; add yours")
    say(f"  contract.odcs.yaml  owner {made.contract.owner}, key {', '.join(made.contract.key)}, a draft")
    say("  README.md           for the people who use it")
    for name, file in place.unsaid(answers):
        say(f"  still to be said: {name}, in {file}")
    command = "headrace" if session.folder is None else f"headrace --mesh {shlex.quote(str(session.folder))}"
    say(f"next: edit schema.avsc, then: {command} check && {command} apply")


def _asked(place: Place, given: Answers) -> Answers:
    """Ask the person at the terminal for what is not said yet; Enter takes what stands in brackets."""
    if given.kind is None and not given.inputs:
        given = replace(given, kind=Kind(asked("Which kind of product is it?", Kind.EVENT, among=list(Kind))))
    if given.kind is Kind.DERIVED and not given.inputs:
        given = replace(given, inputs=asked("Which products is it made from?").replace(",", " ").split())
    if place.domain is None:
        given = replace(given, description=asked(f"What is the new domain {place.name.domain} about?"))
    if given.owner is None:
        given = replace(given, owner=asked("Which team answers for the product?", place.usual_owner))
    if given.purpose is None:
        given = replace(given, purpose=asked(f"What is {place.name} for, in a sentence?"))
    if given.key is None:
        key = asked("Which field is the key? Events with the same key stay in order.", place.usual_key)
        given = replace(given, key=key)
    return given
