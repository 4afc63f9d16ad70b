"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

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
CheckpointEvery = Annotated[
    float, typer.Option(metavar="SECONDS", help="how often a running training is checkpointed")
]
MaxTime = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", min=1, help="stop at the next step after so long, as Ctrl-C does"),
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", help="print nothing but errors")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
