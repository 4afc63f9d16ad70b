"""What a study gives back, and how it is read again from its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.core.answer import Answer, Finalist, StageResult
from lrsearch.core.observations import response_under, trial_rows
from lrsearch.core.response import FittedResponse, Interval, Response, Tolerance
from lrsearch.core.trial import TrialResult
from lrsearch.schedules import schedule_from_dict, schedule_name
from lrsearch.study.config import StudyConfig
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.reading import read_run, read_start
from lrsearch.tracking.status import RecordStatus
from lrsearch.tracking.sync import Mirror

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lrsearch.training.schedulers import TorchSchedule


@dataclass(frozen=True, repr=False)
class StudyResult(RecordStatus):
    """The result of a study: its answer, its stages, and everything that it ran.

    Parameters
    ----------
    name : str
        The name of the study.
    answer : Answer
        The learning rate and the schedule, with the finalists and how sure they are.
    stages : tuple of StageResult
        The stages in order, each with its trials, its cost and what it found.
    config : StudyConfig
        What the study was begun with: the plan, the task, the data.
    folder : StudyFolder
        The folder that holds the record.
    mirror : Mirror, optional
        The process that fills MLflow; None for a result that was loaded.
    key : str, optional
        What identifies the study's run; it is the run's tag ``lrsearch.key``.

    Examples
    --------
    Here "small" is the name of a study that is finished:

    >>> import lrsearch
    >>> result = lrsearch.load("small")
    >>> result.interval.low <= result.interval.high
    True
    >>> sorted(set(result.trials["stage"]))
    ['coarse', 'confirm', 'decay']
    >>> print(result.code())
    from torch.optim import lr_scheduler
    ...
    >>> scheduler = result.schedule.build(optimizer, result.config.total_steps)
    >>> steps, losses = result.points(result.trials_of(result.answer.winner)[0], "val/loss")
    >>> len(steps) == len(losses) > 0
    True
    >>> result.report("small.html").name
    'small.html'
    """

    name: str
    answer: Answer
    stages: tuple[StageResult, ...]
    config: StudyConfig
    folder: StudyFolder
    mirror: Mirror | None = field(default=None, compare=False)
    key: str | None = None

    def __repr__(self) -> str:
        name, lr = schedule_name(self.answer.schedule), self.answer.lr
        return f"StudyResult({self.name!r}, lr={lr:g}, schedule={name!r}, cost={self.cost:.1f})"

    @property
    def lr(self) -> float:
        """The learning rate: the schedule's peak."""
        return self.answer.lr

    @property
    def schedule(self) -> TorchSchedule:
        """The decay schedule; ``result.schedule.build(optimizer, total_steps)`` makes the torch scheduler."""
        from lrsearch.training.schedulers import TorchSchedule

        return TorchSchedule(schedule_from_dict(self.answer.schedule))

    @property
    def interval(self) -> Interval:
        """The confidence set of the optimal lr under the chosen schedule, at the plan's `level`."""
        return self.answer.interval

    @property
    def tolerance(self) -> Tolerance:
        """The lrs that cost less than the margin."""
        return self.answer.tolerance

    @property
    def noise(self) -> float | None:
        """The standard deviation of the objective between seeds, in the objective's unit."""
        return self.answer.noise

    @property
    def warnings(self) -> Mapping[Any, str]:
        """What to beware of: names, each with a sentence that says what was seen."""
        return self.answer.warnings

    @property
    def cost(self) -> float:
        """What the study cost, in run-equivalents."""
        return sum(stage.cost for stage in self.stages)

    @property
    def trials(self) -> pd.DataFrame:
        """A data frame with one row per training.

        Its columns are stage, trial, lr, schedule, seed, steps, optimizer, status, objective, steps_done,
        seconds, cause, and the final value of every metric.
        """
        import pandas as pd

        return pd.DataFrame(trial_rows(self.stages, self.config.plan.objective))

    def trials_of(self, finalist: Finalist) -> list[TrialResult]:
        """Return a finalist's trainings in the confirm stage.

        Parameters
        ----------
        finalist : Finalist
            One of ``answer.finalists``.

        Returns
        -------
        list of TrialResult
            The trainings, ordered by seed.
        """
        chosen = finalist.configuration
        found = [trial for trial in self.stages[-1].trials if trial.spec.configuration == chosen]
        return sorted(found, key=lambda trial: trial.spec.seed)

    def response(self, schedule: Mapping[str, Any] | None = None) -> Response:
        """Return the objective (as a loss) against the lr under a schedule.

        Parameters
        ----------
        schedule : mapping, optional
            The schedule as its ``to_dict``; by default the chosen one.

        Returns
        -------
        Response
            The trials under this schedule, with the seeds of one lr averaged.
        """
        trials = [trial for stage in self.stages for trial in stage.trials]
        under = schedule or self.answer.schedule
        noise, base_lr = self.answer.spread, self.answer.base_lr
        return response_under(self.config.plan, trials, under, self.config.total_steps, noise, base_lr)

    def fit(self, schedule: Mapping[str, Any] | None = None) -> FittedResponse:
        """Fit the response under a schedule.

        Parameters
        ----------
        schedule : mapping, optional
            The schedule as its ``to_dict``; by default the chosen one.

        Returns
        -------
        FittedResponse
            The fitted response.
        """
        return self.response(schedule).fit()

    def code(self) -> str:
        """Return the lines to paste into a training script; they use torch alone.

        Returns
        -------
        str
            Python code that makes the scheduler, with the lr in a comment; and one update, where the task
            accumulates, clips, autocasts, averages or compiles.
        """
        return self.config.code(self.answer)

    def summary(self) -> dict[str, float]:
        """Return the metrics of the study's run in MLflow.

        Returns
        -------
        dict of str to float
            ``best_lr``, ``best_objective``, ``interval_low``, ``interval_high``, ``gain_over_constant``,
            ``noise``, ``diverged_trials``, ``cost_run_equivalents``, and the metrics on the test data; what
            is not known is left out.
        """
        answer = self.answer
        gain = answer.gain_over_constant
        values: dict[str, float | None] = {
            "best_lr": answer.lr,
            "best_objective": answer.objective,
            "interval_low": answer.interval.low,
            "interval_high": answer.interval.high,
            "gain_over_constant": None if gain is None else gain.mean,
            "noise": answer.noise,
            "diverged_trials": sum(t.status == "diverged" for stage in self.stages for t in stage.trials),
            "cost_run_equivalents": self.cost,
        }
        if answer.winner is answer.constant:
            values["gain_over_constant"] = 0.0
        tested = {
            f"{metric}_{label}": value
            for label, test in answer.test.items()
            for metric, value in test.items()
        }
        return {name: float(value) for name, value in (values | tested).items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON.

        Returns
        -------
        dict
            The answer, the warnings, the stages and where the record is; what is absent is None.
        """
        answer = self.answer.to_dict()
        warnings = answer.pop("warnings")
        return {
            **answer,
            "warnings": list(warnings),
            "remarks": warnings,
            "cost_run_equivalents": self.cost,
            "stages": [
                {
                    "stage": stage.stage,
                    "trials": len(stage.trials),
                    "cost_run_equivalents": stage.cost,
                    "found": asdict(stage.found) if stage.found else {},
                }
                for stage in self.stages
            ],
            "name": self.name,
            "task": self.config.task,
            "folder": str(self.folder.path),
            "run_id": self.run_id_now,
            "tracking": self.tracking,
        }

    def plot_response(self, ax: Axes | None = None) -> Axes:
        """Draw the objective against the lr: every trial, the fit, the interval.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default on a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from lrsearch.report.plots.study import plot_response

        return plot_response(self.answer, self.stages, self.config.plan, self.config.total_steps, ax=ax)

    def plot_schedules(self, ax: Axes | None = None) -> Axes:
        """Draw the lr of the finalists over the training.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default on a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from lrsearch.report.plots.study import plot_schedules

        config = self.config
        curves = {
            finalist.name: schedule_from_dict(finalist.schedule).curve(
                finalist.lr, config.total_steps, config.steps_per_epoch
            )
            for finalist in self.answer.finalists
        }
        return plot_schedules(curves, self.answer.winner.name, ax=ax)

    def plot_learning_curves(self, metric: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw a metric of the finalists' first seed over the steps.

        Parameters
        ----------
        metric : str, optional
            The name of the metric; by default the objective's.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default on a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from lrsearch.report.plots.study import plot_learning_curves

        name = metric or self.answer.metric
        curves = {}
        for finalist in self.answer.finalists:
            trials = self.trials_of(finalist)
            if trials:
                curves[finalist.name] = self.points(trials[0], name)
        return plot_learning_curves(curves, self.answer.winner.name, name, ax=ax)

    def points(self, trial: TrialResult, metric: str) -> tuple[list[int], list[float]]:
        """Read what a training recorded of a metric.

        Parameters
        ----------
        trial : TrialResult
            The training, such as one of `trials_of`.
        metric : str
            The name of the metric, such as ``"train/loss"``.

        Returns
        -------
        steps : list of int
            The number of updates done at each point.
        values : list of float
            The value at each point. Both lists are empty where there is nothing.
        """
        for path in self.folder.journals():
            if read_start(path).tags.get("lrsearch.trial_key") == trial.spec.key:
                steps, values = read_run(path).metric(metric)
                return list(steps), list(values)
        return [], []

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the report, one page of HTML.

        Parameters
        ----------
        path : str or path, optional
            The file to write; by default ``report.html`` in the study's folder.

        Returns
        -------
        pathlib.Path
            The file written.

        Raises
        ------
        InputError
            If the path cannot be written.
        """
        from lrsearch.study.gather import write_report

        return write_report(self.folder, path, (self.answer, self.stages))

    def _repr_html_(self) -> str:
        from lrsearch.report.study import study_html

        return study_html(self.answer, self.stages, self.name)
