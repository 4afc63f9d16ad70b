"""The command line: parses, calls, prints."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Task = Annotated[
    str,
    typer.Argument(metavar="TASK", help="digits, fashion-mnist, mnist, FILE.py:FUNCTION or MODULE:FUNCTION"),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="the record's name, or the path of its folder")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps …; else the accelerator that torch finds")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="K=V", help="an argument of the task's function; repeat for more"),
]
Tag = Annotated[
    list[str] | None, typer.Option("--tag", metavar="K=V", help="a tag on every MLflow run; repeat for more")
]
TrackingUri = Annotated[
    str | None, typer.Option(help="MLflow's server; else MLFLOW_TRACKING_URI, else sqlite:///mlflow.db")
]
Experiment = Annotated[
    str | None, typer.Option(help="MLflow's experiment; else MLFLOW_EXPERIMENT_NAME, else lrsearch/TASK")
]
SyncTimeout = Annotated[
    float, typer.Option(min=0, help="seconds to wait at the end until MLflow has everything")
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", help="say nothing but errors")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


@app.callback()
def lrsearch() -> None:
    """Which learning rate, and does it need decay? A tracked range test and search for PyTorch."""


@app.command("range-test")
def range_test(
    task: Task,
    min_lr: Annotated[float, typer.Option(help="lr of the first step")] = 1e-7,
    max_lr: Annotated[float, typer.Option(help="lr of the last step")] = 10.0,
    steps: Annotated[
        int | None, typer.Option(help="optimizer updates; one epoch, from 100 to 1,000, where not given")
    ] = None,
    spacing: Annotated[str, typer.Option(metavar="log|linear", help="how the lrs are spaced")] = "log",
    smoothing: Annotated[float, typer.Option(help="beta of the running average, 0 to below 1")] = 0.98,
    repeats: Annotated[int, typer.Option(help="seeds, each with a curve; one answer from all")] = 1,
    seed: Annotated[int, typer.Option(help="the first seed")] = 0,
    stop: Annotated[str, typer.Option(metavar="auto|4x|none", help="when to end the sweep early")] = "auto",
    accumulate: Annotated[int, typer.Option(help="batches to one update")] = 1,
    clip: Annotated[float | None, typer.Option(help="largest norm of the gradient")] = None,
    precision: Annotated[
        str, typer.Option(metavar="32|16|bf16", help="16 and bf16 train under autocast")
    ] = "32",
    device: Device = None,
    settings: Setting = None,
    tags: Tag = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    tracking: Annotated[
        bool, typer.Option("--tracking/--no-tracking", help="record in a folder and in MLflow, or nowhere")
    ] = True,
    out: Annotated[
        str | None, typer.Option(help="folder of the record; else one below LRSEARCH_HOME or ./lrsearch-runs")
    ] = None,
    sync_timeout: SyncTimeout = 10.0,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train while the lr rises, and suggest a learning rate and a bracket."""
    with _reporting(debug):
        if quiet:
            warnings.simplefilter("ignore")
        from lrsearch.search.range_test import range_test as run
        from lrsearch.search.task_source import load_task

        with redirect_stdout(sys.stderr):  # what the task prints; stdout is for the answer
            result = run(
                load_task(task, settings or []),
                min_lr=min_lr,
                max_lr=max_lr,
                steps=steps,
                spacing=spacing,  # type: ignore[arg-type]  # any text: it is validated with the other arguments
                smoothing=smoothing,
                repeats=repeats,
                seed=seed,
                stop=stop,  # type: ignore[arg-type]
                accumulate=accumulate,
                clip=clip,
                precision=precision,  # type: ignore[arg-type]
                device=device,
                tracking=tracking,
                tracking_uri=tracking_uri,
                experiment=experiment,
                tags=_pairs("--tag", tags or []),
                out=out,
                progress=not quiet,
            )
        _wait_for_mlflow(result, sync_timeout)
        if as_json:
            _print_json(result.to_dict())
        elif not quiet:
            _print_range_test(result)


@app.command()
def search(
    task: Task,
    name: Annotated[str, typer.Option(help="the study's name, and that of its folder")],
    epochs: Annotated[int | None, typer.Option(help="length of a full training; 5 epochs by default")] = None,
    steps: Annotated[int | None, typer.Option(help="length of a full training in updates instead")] = None,
    plan: Annotated[
        str, typer.Option(metavar="PRESET|FILE", help="quick, default, thorough, or a .toml file")
    ] = "default",
    objective: Annotated[
        str | None, typer.Option(metavar="METRIC", help="what is optimised; val/loss by default")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="the first seed; 0 by default")] = None,
    device: Device = None,
    settings: Setting = None,
    tags: Tag = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    sync_timeout: SyncTimeout = 10.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the plan and what it costs, and train nothing")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Search the learning rate and the decay schedule, as a study that can be resumed."""
    with _reporting(debug, study=name):
        if quiet:
            warnings.simplefilter("ignore")
        from lrsearch.core.study_plan import load_plan
        from lrsearch.search.setting import prepare
        from lrsearch.search.study import _changes as changes
        from lrsearch.search.study import search as run
        from lrsearch.search.task_source import load_task

        source = (task, settings or [])
        with redirect_stdout(sys.stderr):  # what the task prints; stdout is for the answer
            chosen = load_plan(plan).with_changes(**changes(epochs, steps, seed, objective))
            subject = load_task(*source)
            if dry_run:
                terms = prepare(subject, chosen, device).terms
            else:
                result = run(
                    subject,
                    name,
                    plan=chosen,
                    device=device,
                    tracking_uri=tracking_uri,
                    experiment=experiment,
                    tags=_pairs("--tag", tags or []),
                    progress=not quiet,
                    source=source,
                )
        if dry_run:
            _print_plan(terms, as_json, quiet)
        else:
            _print_study(result, sync_timeout, as_json, quiet)


@app.command()
def resume(
    name: Name,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="go on though plan, task or data have changed")
    ] = False,
    device: Device = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    sync_timeout: SyncTimeout = 10.0,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Go on with an interrupted study: nothing that is finished runs twice."""
    with _reporting(debug, study=name):
        if quiet:
            warnings.simplefilter("ignore")
        from lrsearch.search.study import resume as run

        with redirect_stdout(sys.stderr):
            result = run(
                name,
                device=device,
                accept_changes=accept_changes,
                tracking_uri=tracking_uri,
                experiment=experiment,
                progress=not quiet,
            )
        _print_study(result, sync_timeout, as_json, quiet)


@app.command()
def sync(
    name: Name,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    timeout: Annotated[float, typer.Option(min=0, help="seconds to wait until MLflow has everything")] = 60.0,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Send to MLflow what it has not got of a record, also to another or an emptied server."""
    with _reporting(debug):
        from lrsearch.tracking.folder import find_folder
        from lrsearch.tracking.sync import sync as run

        folder = find_folder(name)
        state = "synced" if run(folder, tracking_uri, experiment, timeout) else "pending"
        _say_pending(state, folder)
        if as_json:
            _print_json({"name": folder.name, "tracking": state})
        elif not quiet and state == "synced":
            typer.echo(f"{folder.name}: MLflow has everything")


def main() -> None:
    """The entry point: exit code 0 done, 1 the work failed, 2 the input was wrong, 130 interrupted, 143
    terminated.
    """
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = lambda message, *_: _say(f"warning: {message}")
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        if message := _usage_message(error):
            _say(message)
        code = 2
    sys.exit(code or 0)


def _usage_message(error: TyperException) -> str:
    """What is wrong with the words typed, in one line; empty where the help was shown for want of any."""
    from pydantic import ValidationError

    message, cause = error.format_message(), error.__cause__
    if isinstance(cause, ValidationError):  # Typer's own message leaves the value out
        message += f", and not {cause.errors()[0]['input']!r}"
    return message and f"{message}; see lrsearch --help"


class _TerminatedError(SystemExit):
    """SIGTERM has come."""


@contextmanager
def _reporting(debug: bool, study: str | None = None) -> Iterator[None]:
    """Turns what is raised into one line on stderr and an exit code; an interrupted `study` can go on."""
    from lrsearch.errors import InputError, LrsearchError, first_line

    try:
        yield
    except KeyboardInterrupt as error:
        _fail(f"interrupted; {_what_is_left(study)}", 130, error, debug)
    except _TerminatedError as error:
        _fail(f"terminated; {_what_is_left(study)}", 143, error, debug)
    except LrsearchError as error:
        _fail(str(error), 2 if isinstance(error, InputError) else 1, error, debug)
    except Exception as error:
        where = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        _fail(f"{type(error).__name__}: {first_line(error)}{where}", 1, error, debug)


def _what_is_left(study: str | None) -> str:
    """What an interruption leaves, and how a study goes on."""
    from lrsearch.errors import InputError
    from lrsearch.tracking.folder import find_folder

    if study is None:
        return "the model was put back, what was recorded is kept"
    try:
        begun = find_folder(study).plan.is_file()
    except InputError:
        begun = False
    return f"lrsearch resume {shlex.quote(study)} goes on" if begun else "the study had not begun"


def _fail(message: str, code: int, error: BaseException, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    _say(message)
    raise typer.Exit(code) from error


def _say(message: str) -> None:
    typer.echo(f"lrsearch: {message}", err=True)


def _wait_for_mlflow(result: Any, timeout: float) -> None:
    if result.mirror is not None:
        result.wait(timeout)
        _say_pending(result.tracking, result.folder)


def _say_pending(state: str, folder: Any) -> None:
    if state == "pending":
        from lrsearch.tracking.folder import home
        from lrsearch.tracking.state import load_state

        name = folder.name if folder.path.parent == home() else folder.path
        kept = load_state(folder)
        reason = f" ({kept.error})" if kept is not None and kept.error else ""
        _say(f"MLflow has not got everything yet{reason}; nothing is lost: lrsearch sync {name}")


def _terminate(number: int, frame: object) -> None:  # noqa: ARG001
    raise _TerminatedError(143)


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    from lrsearch.errors import InputError

    for text in texts:
        if "=" not in text:
            raise InputError(option, text, "has no value", "write NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _print_json(values: dict[str, Any]) -> None:
    typer.echo(json.dumps(values, allow_nan=False))


def _print_range_test(result: Any) -> None:
    from rich.console import Console

    from lrsearch.report.tables import range_test_table

    Console().print(range_test_table(result.curves, result.suggestion, result.task))
    if result.folder is not None:
        typer.echo(f"plot    {result.folder.path / 'curve.png'}")
        typer.echo(f"MLflow  mlflow ui --backend-store-uri {result.tracking_uri}")


def _print_plan(terms: Any, as_json: bool, quiet: bool) -> None:
    from rich.console import Console

    from lrsearch.report.study_tables import plan_dict, plan_table

    about = (terms.plan, terms.total_steps, terms.steps_per_epoch)
    if as_json:
        _print_json(plan_dict(*about))
    elif not quiet:
        Console().print(plan_table(*about))


def _print_study(result: Any, sync_timeout: float, as_json: bool, quiet: bool) -> None:
    _wait_for_mlflow(result, sync_timeout)
    if as_json:
        _print_json(result.to_dict())
    elif not quiet:
        _print_answer(result)


def _print_answer(result: Any) -> None:
    from rich.console import Console

    from lrsearch.report.study_tables import answer_lines, remark_lines, study_table, warning_lines

    answer = result.answer
    for line in answer_lines(answer, result.cost):
        typer.echo(line)
    typer.echo()
    Console().print(study_table(answer, result.stages))
    for line in [*remark_lines(answer), *warning_lines(answer)]:
        typer.echo(line)
    typer.echo(f"folder  {result.folder.path}")
    typer.echo(f"MLflow  mlflow ui --backend-store-uri {result.tracking_uri}")
    typer.echo(f"\n{result.code()}")
