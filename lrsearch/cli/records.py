"""The commands that read, send, compare and remove what is on record."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from lrsearch.cli.app import app
from lrsearch.cli.console import print_json, reporting, say, say_pending
from lrsearch.cli.options import Debug, Device, Experiment, Json, Name, Quiet, TrackingUri


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
    """Send MLflow whatever it lacks of a record; also fills another server, or an emptied one."""
    with reporting(debug):
        from lrsearch.tracking.folder import find_folder
        from lrsearch.tracking.sync import sync as run

        folder = find_folder(name)
        state = "synced" if run(folder, tracking_uri, experiment, timeout) else "pending"
        say_pending(state, folder)
        if as_json:
            print_json({"name": folder.name, "tracking": state})
        elif not quiet and state == "synced":
            typer.echo(f"{folder.name}: MLflow has everything")


@app.command()
def report(
    name: Name,
    out: Annotated[
        str | None, typer.Option(help="where to write it; report.html in the study's folder by default")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a study's report, a single self-contained page; an unfinished study shows what it has."""
    with reporting(debug):
        from lrsearch.study.gather import write_report
        from lrsearch.tracking.folder import find_folder

        page = write_report(find_folder(name), out)
        if as_json:
            print_json({"name": name, "report": str(page)})
        elif not quiet:
            typer.echo(page)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="one of them; else all")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the studies and range tests, and how far each has come."""
    with reporting(debug):
        from lrsearch.study.status import overview
        from lrsearch.study.status import status as status_of
        from lrsearch.tracking.folder import find_folder, home

        found = overview() if name is None else [status_of(find_folder(name))]
        if as_json:
            print_json({"home": str(home()), "records": [entry.to_dict() for entry in found]})
        elif not found:
            typer.echo(f"there is nothing in {home()}")
        else:
            from lrsearch.report.table import print_table
            from lrsearch.study.status import status_table

            print_table(status_table(found))


@app.command()
def reproduce(
    name: Name,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a study's winner again and compare it with its record; exit code 1 if it differs."""
    with reporting(debug):
        from lrsearch.study.reproduce import reproduce as run

        with redirect_stdout(sys.stderr):
            found = run(name, device=device)
        if as_json:
            print_json(found.to_dict())
        elif not quiet:
            for line in found.lines():
                typer.echo(line)
    if found.verdict == "different":
        raise typer.Exit(1)


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(metavar="NAME NAME …", help="the studies' names or folders")],
    out: Annotated[Path | None, typer.Option(help="also write an HTML page there")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare finished studies, and say which differences are real."""
    with reporting(debug):
        from lrsearch.study.compare import compare as run

        found = run(*names)
        page = None if out is None else found.report(out)
        if as_json:
            print_json(found.to_dict() | {"report": page and str(page)})
        else:
            _print_comparison(found, page)


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the built-in tasks, with their settings."""
    from lrsearch.study.task_source import built_in_tasks

    found = built_in_tasks()
    if as_json:
        print_json(found)
        return
    for name, about in found.items():
        typer.echo(f"{name}: {about['what']}")
        for setting, default in about["settings"].items():
            typer.echo(f"  --set {setting}={default}")


@app.command()
def ui(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="the study to be shown")] = None,
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="port on this machine")] = 5000,
    debug: Debug = False,
) -> None:
    """Start MLflow's own UI on a study's store, on this machine only, and print its address."""
    with reporting(debug):
        from lrsearch.study.ui import serve

        serve(name, tracking_uri, port, say=typer.echo)


@app.command()
def rm(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    debug: Debug = False,
) -> None:
    """Remove the folder of a study or range test; what MLflow has of it stays."""
    with reporting(debug):
        import shutil

        from lrsearch.study.status import status as status_of
        from lrsearch.tracking.folder import find_folder

        folder = find_folder(name)
        if status_of(folder).state == "running":
            from lrsearch.errors import InputError

            raise InputError("name", name, "a process is at work on it", "stop that first")
        if not yes and not typer.confirm(f"remove {folder.path} for ever?"):
            raise typer.Exit(1)
        shutil.rmtree(folder.path)
        say(f"removed {folder.path}")


def _print_comparison(found: Any, page: Path | None) -> None:
    from lrsearch.report.comparison import remark_lines, sentence, tables
    from lrsearch.report.table import print_table

    typer.echo(sentence(found.comparison))
    for table in tables(found.comparison):
        print_table(table)
    for line in remark_lines(found.comparison):
        typer.echo(line)
    if page is not None:
        typer.echo(f"page    {page}")
