"""Commands that write files of a mesh: ``init``, ``new``."""

from __future__ import annotations

import typer

app = typer.Typer()
