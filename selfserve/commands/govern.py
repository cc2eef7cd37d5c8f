"""Commands of governance: ``audit``, ``findings``."""

from __future__ import annotations

import typer

app = typer.Typer()
