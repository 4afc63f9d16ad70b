"""The commands that train: range-test, search, resume."""

from __future__ import annotations

import sys
import warnings
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer

from lrsearch.cli.app import app
from lrsearch.cli.console import limited, opening, pairs, print_json, reporting, wait_for_mlflow
from lrsearch.cli.options import (
    CheckpointEvery,
    Debug,
    Device,
    Experiment,
    Json,
    MaxTime,
    Name,
    Quiet,
    Setting,
    SyncTimeout,
    Tag,
    Task,
    TrackingUri,
)


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
    divergence: Annotated[
        str,
        typer.Option(
            metavar="auto|not_finite|loss_rose",
            help="not_finite where the training loss may rise without harm",
        ),
    ] = "auto",
    accumulate: Annotated[
        int | None, typer.Option(help="batches to one update; else the Task's, or 1")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="largest norm of the gradient")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="32|16|bf16", help="16 and bf16 train under autocast")
    ] = None,
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
    with reporting(debug):
        if quiet:
            warnings.simplefilter("ignore")
        from lrsearch.study.sweep import range_test as run
        from lrsearch.study.task_source import load_task

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
                divergence=divergence,  # type: ignore[arg-type]
                accumulate=accumulate,
                clip=clip,
                precision=precision,  # type: ignore[arg-type]
                device=device,
                tracking=tracking,
                tracking_uri=tracking_uri,
                experiment=experiment,
                tags=pairs("--tag", tags or []),
                out=out,
                progress=not quiet,
            )
        wait_for_mlflow(result, sync_timeout)
        if as_json:
            print_json(result.to_dict())
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
    direction: Annotated[
        str | None,
        typer.Option(metavar="minimize|maximize", help="which way it is better, where its name does not say"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="the first seed; 0 by default")] = None,
    device: Device = None,
    settings: Setting = None,
    tags: Tag = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    checkpoint_every: CheckpointEvery = 60.0,
    max_time: MaxTime = None,
    sync_timeout: SyncTimeout = 10.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the plan and what it costs, and train nothing")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Search the learning rate and the decay schedule, as a study that can be resumed."""
    with reporting(debug, study=name), limited(max_time):
        if quiet:
            warnings.simplefilter("ignore")
        from lrsearch.core.presets import load_plan
        from lrsearch.study.prepare import changes_asked, prepare
        from lrsearch.study.search import search as run
        from lrsearch.study.task_source import load_task

        source = (task, settings or [])
        with redirect_stdout(sys.stderr):  # what the task prints; stdout is for the answer
            subject = load_task(*source)  # first: its module may register schedules that the plan names
            chosen = load_plan(plan).with_changes(**changes_asked(epochs, steps, seed, objective, direction))
            if dry_run:
                config = prepare(subject, chosen, device).config
            else:
                result = run(
                    subject,
                    name,
                    plan=chosen,
                    device=device,
                    tracking_uri=tracking_uri,
                    experiment=experiment,
                    checkpoint_every=checkpoint_every,
                    tags=pairs("--tag", tags or []),
                    progress=not quiet,
                    source=source,
                )
        if dry_run:
            _print_plan(config, as_json, quiet)
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
    checkpoint_every: CheckpointEvery = 60.0,
    max_time: MaxTime = None,
    sync_timeout: SyncTimeout = 10.0,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Continue an interrupted study; nothing that is finished runs again."""
    with reporting(debug, study=name), limited(max_time):
        if quiet:
            warnings.simplefilter("ignore")
        from lrsearch.study.search import resume as run

        with redirect_stdout(sys.stderr):
            result = run(
                name,
                device=device,
                accept_changes=accept_changes,
                tracking_uri=tracking_uri,
                experiment=experiment,
                checkpoint_every=checkpoint_every,
                progress=not quiet,
            )
        _print_study(result, sync_timeout, as_json, quiet)


def _print_range_test(result: Any) -> None:
    from lrsearch.report.range_test import range_test_table
    from lrsearch.report.table import print_table

    print_table(range_test_table(result.curves, result.suggestion, result.task))
    if result.folder is not None:
        typer.echo(f"plot    {result.folder.path / 'curve.png'}")
        typer.echo(f"MLflow  {opening(result.folder)}")


def _print_plan(config: Any, as_json: bool, quiet: bool) -> None:
    from lrsearch.report.study import plan_dict, plan_table
    from lrsearch.report.table import print_table

    about = (config.plan, config.total_steps, config.steps_per_epoch)
    if as_json:
        print_json(plan_dict(*about))
    elif not quiet:
        print_table(plan_table(*about))


def _print_study(result: Any, sync_timeout: float, as_json: bool, quiet: bool) -> None:
    wait_for_mlflow(result, sync_timeout)
    if as_json:
        print_json(result.to_dict())
    elif not quiet:
        _print_answer(result)


def _print_answer(result: Any) -> None:
    from lrsearch.report.study import answer_lines, remark_lines, study_table, warning_lines
    from lrsearch.report.table import print_table

    answer = result.answer
    for line in answer_lines(answer, result.cost):
        typer.echo(line)
    typer.echo()
    print_table(study_table(answer, result.stages))
    for line in [*remark_lines(answer), *warning_lines(answer)]:
        typer.echo(line)
    typer.echo(f"folder  {result.folder.path}")
    typer.echo(f"MLflow  {opening(result.folder)}")
    typer.echo(f"\n{result.code()}")
