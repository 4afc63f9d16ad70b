"""The application that every command joins."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def lrsearch() -> None:
    """Which learning rate, and does it need decay? A tracked range test and search for PyTorch."""
