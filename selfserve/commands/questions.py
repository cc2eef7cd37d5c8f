"""Questions to the person at the terminal. Ctrl-C at a question interrupts the command, as it does anywhere else."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from headrace.schemas.errors import UserError
from headrace.selfserve.commands import FAILED, INTERRUPTED
from headrace.selfserve.output import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["asked", "check_answerable", "confirm"]


def asked(question: str, usual: str = "", *, among: Sequence[str] = ()) -> str:
    """Return the answer to a question; Enter takes what stands in brackets.

    Args:
        question: what is asked.
        usual: the answer that Enter gives.
        among: the words that are answers, all others are asked again; empty: any text is.
    """

    def read(text: str) -> str:
        if among and text not in among:
            raise typer.BadParameter(f"say {', '.join(among[:-1])} or {among[-1]}")
        return text

    with _interrupted():
        shown = bool(usual)
        return str(
            typer.prompt(question, default=usual, value_proc=read, show_default=shown, prompt_suffix=" ", err=True)
        )


def confirm(question: str, *, yes: bool) -> None:
    """Go on only if the person says yes, or has said so on the command line.

    Args:
        question: what is about to be done.
        yes: whether it was said on the command line.

    Raises:
        UserError: if nobody is there to be asked.
        typer.Exit: if the answer is no.
    """
    check_answerable(yes=yes)
    if yes:
        return
    with _interrupted():
        agreed = typer.confirm(question, err=True)
    if not agreed:
        say("nothing was changed")
        raise typer.Exit(FAILED)


def check_answerable(*, yes: bool) -> None:
    """Check that a question could be answered: for commands that prepare something before they ask.

    Raises:
        UserError: if nobody is there to be asked.
    """
    if not yes and not sys.stdin.isatty():
        raise UserError("this wants an answer, and nobody is at a terminal", hint="say --yes if it is what you want")


@contextmanager
def _interrupted() -> Iterator[None]:
    try:
        yield
    except typer.Abort:
        # The terminal still stands behind the question.
        say("")
        raise typer.Exit(INTERRUPTED) from None
