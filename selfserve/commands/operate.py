"""Commands of the person on call: ``status``, ``hold``, ``release``, ``ledger``, ``accept-gap``."""

from __future__ import annotations

import typer

app = typer.Typer()
