"""The option ``--log-format`` of commands that run for long and log."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.selfserve.output import LogFormat, log_to_stderr

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["logged"]

_OPTION = inspect.Parameter(
    "log_format",
    inspect.Parameter.KEYWORD_ONLY,
    default=LogFormat.TEXT,
    annotation=Annotated[LogFormat, typer.Option("--log-format", help="How to write log lines.")],
)


def logged(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option: its log is set up before it runs."""
    # Typer reads a command's options from its signature.
    signature = inspect.signature(command, eval_str=True)

    @wraps(command)
    def run(*given: Any, log_format: LogFormat = LogFormat.TEXT, **options: Any) -> None:
        log_to_stderr(log_format)
        command(*given, **options)

    run.__signature__ = signature.replace(  # type: ignore[attr-defined]  # functions take it, typeshed does not say so
        parameters=[*signature.parameters.values(), _OPTION]
    )
    return run
