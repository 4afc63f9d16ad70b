"""What the command line says, and how it ends: one line on stderr and an exit code."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import typer


class TerminatedError(SystemExit):
    """SIGTERM has come."""


_RAISED = {KeyboardInterrupt: signal.SIGINT, TerminatedError: signal.SIGTERM}
_A_MOMENT_S = 0.05
"""Until the callback has returned in which a signal was lost."""


@contextmanager
def reporting(debug: bool, study: str | None = None) -> Iterator[None]:
    """Turns what is raised into one line on stderr and an exit code; an interrupted `study` can go on."""
    from lrsearch.errors import InputError, LrsearchError, RecordError, first_line

    try:
        with _no_signal_lost():
            yield
    except KeyboardInterrupt as error:
        _fail(f"interrupted; {_what_is_left(study)}", 130, error, debug)
    except TerminatedError as error:
        _fail(f"terminated; {_what_is_left(study)}", 143, error, debug)
    except RecordError as error:
        goes_on = f"; once that is fixed, {_what_is_left(study)}" if study and _is_begun(study) else ""
        _fail(f"{error}{goes_on}", 1, error, debug)
    except LrsearchError as error:
        _fail(str(error), 2 if isinstance(error, InputError) else 1, error, debug)
    except Exception as error:
        where = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        _fail(f"{type(error).__name__}: {first_line(error)}{where}", 1, error, debug)


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Interrupts what it holds after so many seconds, just as Ctrl-C would.

    Where SIGINT is ignored, as in the background of a shell script, it does so by SIGTERM.
    """
    if seconds is None:
        yield
        return
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    timer = threading.Timer(seconds, _send, [signal.SIGTERM if ignored else signal.SIGINT])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _no_signal_lost() -> Iterator[None]:
    """Sends a signal once more that was lost on its way.

    Python raises the exception of a signal wherever the program stands just then. In a destructor or a
    weakref's callback, of which torch has many, nobody can catch it: it is dropped, and the work goes on.
    """
    lost: SimpleQueue[signal.Signals | None] = SimpleQueue()  # its `put` may be called in a callback
    before = sys.unraisablehook

    def dropped(unraisable: sys.UnraisableHookArgs) -> None:
        for kind, number in _RAISED.items():
            if isinstance(unraisable.exc_value, kind):
                lost.put(number)
                return
        before(unraisable)

    def send_again() -> None:
        while (number := lost.get()) is not None:
            time.sleep(_A_MOMENT_S)
            if lost.empty():  # else the work has ended meanwhile
                _send(number)

    sender = threading.Thread(target=send_again, name="lrsearch-signals", daemon=True)
    sender.start()
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before
        lost.put(None)


def _send(number: signal.Signals) -> None:
    """Send a signal to the main thread, which may be waiting."""
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def _what_is_left(study: str | None) -> str:
    """What an interruption leaves, and how to continue a study."""
    if study is None:
        return "the model was restored, and what was recorded is kept"
    if not _is_begun(study):
        return "the study had not begun"
    return f"continue with: lrsearch resume {shlex.quote(study)}"


def _is_begun(study: str) -> bool:
    """Whether there is a study to go on with."""
    from lrsearch.errors import InputError
    from lrsearch.tracking.folder import find_folder

    try:
        return find_folder(study).plan.is_file()
    except InputError:
        return False


def _fail(message: str, code: int, error: BaseException, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    say(message)
    raise typer.Exit(code) from error


def say(message: str) -> None:
    """A message on stderr."""
    typer.echo(f"lrsearch: {message}", err=True)


def wait_for_mlflow(result: Any, timeout: float) -> None:
    """Wait at most so many seconds until MLflow has everything; say so where it has not."""
    if result.mirror is not None:
        result.wait(timeout)
        say_pending(result.tracking, result.folder)


def say_pending(state: str, folder: Any) -> None:
    """Say how a record that MLflow does not have in full is sent later."""
    if state == "pending":
        from lrsearch.tracking.progress import load_state

        kept = load_state(folder)
        reason = f" ({_store(folder)}: {kept.error})" if kept is not None and kept.error else ""
        left = f"nothing is lost, send it with: lrsearch sync {_name(folder)}"
        say(f"MLflow does not have everything yet{reason}; {left}")


def opening(folder: Any) -> str:
    """How to look at a record in MLflow, and where that has it."""
    return f"lrsearch ui {_name(folder)}   ({_store(folder)})"


def _name(folder: Any) -> str:
    """What a command takes for this folder: the study's name, or its path where it lies elsewhere."""
    from lrsearch.tracking.folder import home

    return str(folder.name if folder.path.parent == home() else folder.path)


def _store(folder: Any) -> str:
    """MLflow's tracking URI, without a password."""
    from lrsearch.tracking import destination

    kept = destination.load(folder)
    return "no MLflow" if kept is None else kept.redacted().tracking_uri


def pairs(option: str, texts: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping; InputError for one without a value."""
    from lrsearch.errors import InputError

    for text in texts:
        if "=" not in text:
            raise InputError(option, text, "has no value", "write NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def print_json(values: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    typer.echo(json.dumps(values, allow_nan=False))
