"""The command line: parses, calls, prints."""

from __future__ import annotations

import logging
import signal
import sys
import warnings

from typer.exceptions import TyperException

from lrsearch.cli import records as _records  # noqa: F401  # joins the application
from lrsearch.cli import work as _work  # noqa: F401
from lrsearch.cli.app import app
from lrsearch.cli.console import TerminatedError, say

__all__ = ["app", "main"]


def main() -> None:
    """The entry point: exit code 0 done, 1 the work failed, 2 the input was wrong, 130 interrupted, 143
    terminated.
    """
    signal.signal(signal.SIGTERM, _terminate)
    # Else a query that Ctrl-C cuts short shows its traceback.
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)
    warnings.showwarning = lambda message, *_: say(f"warning: {message}")
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        if message := _usage_message(error):
            say(message)
        code = 2
    sys.exit(code or 0)


def _usage_message(error: TyperException) -> str:
    """What is wrong with the words typed, in one line; empty where the help was shown for want of any."""
    from pydantic import ValidationError

    message, cause = error.format_message(), error.__cause__
    if isinstance(cause, ValidationError):  # Typer's own message leaves the value out
        message += f", and not {cause.errors()[0]['input']!r}"
    return message and f"{message}; see lrsearch --help"


def _terminate(number: int, frame: object) -> None:  # noqa: ARG001
    raise TerminatedError(143)
