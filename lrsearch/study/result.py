"""What a study gives back, and how it is read again from its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.core.answer import Answer, Finalist, StageResult
from lrsearch.core.observations import response_under
from lrsearch.core.response import FittedResponse, Interval, Response, Tolerance
from lrsearch.core.stats import Noise
from lrsearch.core.trial import TrialResult
from lrsearch.schedules import schedule_from_dict, schedule_name
from lrsearch.study.config import StudyConfig, load_config
from lrsearch.study.files import read_result
from lrsearch.tracking.folder import StudyFolder, find_folder
from lrsearch.tracking.reading import read_run, read_start
from lrsearch.tracking.status import RecordStatus
from lrsearch.tracking.sync import Mirror

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lrsearch.training.schedulers import TorchSchedule


@dataclass(frozen=True, repr=False)
class StudyResult(RecordStatus):
    """A study's answer, its stages, and everything that it ran."""

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
        """The confidence set of the optimal lr under the chosen schedule."""
        return self.answer.interval

    @property
    def tolerance(self) -> Tolerance:
        """The lrs that cost less than the margin."""
        return self.answer.tolerance

    @property
    def noise(self) -> float:
        """Standard deviation of the objective between seeds."""
        return self.answer.noise

    @property
    def warnings(self) -> Mapping[Any, str]:
        """What to beware of: a name, and a sentence that says what was seen."""
        return self.answer.warnings

    @property
    def cost(self) -> float:
        """What the study cost, in run-equivalents."""
        return sum(stage.cost for stage in self.stages)

    @property
    def trials(self) -> pd.DataFrame:
        """One row a training: stage, trial, lr, schedule, seed, steps, status, objective, its metrics."""
        import pandas as pd

        return pd.DataFrame(self._rows())

    def trials_of(self, finalist: Finalist) -> list[TrialResult]:
        """A finalist's trainings in the confirm stage, by seed."""
        chosen = finalist.configuration
        found = [trial for trial in self.stages[-1].trials if trial.spec.configuration == chosen]
        return sorted(found, key=lambda trial: trial.spec.seed)

    def response(self, schedule: Mapping[str, Any] | None = None) -> Response:
        """The objective (as a loss) against lr under a schedule, by default the chosen one."""
        trials = [trial for stage in self.stages for trial in stage.trials]
        under = schedule or self.answer.schedule
        noise, base_lr = Noise(self.answer.noise), self.answer.base_lr
        return response_under(self.config.plan, trials, under, self.config.total_steps, noise, base_lr)

    def fit(self, schedule: Mapping[str, Any] | None = None) -> FittedResponse:
        """The fitted response under a schedule, by default the chosen one."""
        return self.response(schedule).fit()

    def code(self) -> str:
        """The lines to paste into a training script, with torch alone."""
        config, schedule = self.config, schedule_from_dict(self.answer.schedule)
        return schedule.code(self.lr, config.total_steps, config.steps_per_epoch)

    def summary(self) -> dict[str, float]:
        """The metrics of the study's run in MLflow."""
        answer = self.answer
        gain = answer.gain_over_constant
        values = {
            "best_lr": answer.lr,
            "best_objective": answer.objective,
            "interval_low": answer.interval.low,
            "interval_high": answer.interval.high,
            "gain_over_constant": 0.0 if gain is None else gain.mean,
            "noise": answer.noise,
            "diverged_trials": sum(t.status == "diverged" for stage in self.stages for t in stage.trials),
            "cost_run_equivalents": self.cost,
        }
        tested = {
            f"{metric}_{label}": value
            for label, test in answer.test.items()
            for metric, value in test.items()
        }
        return {name: float(value) for name, value in (values | tested).items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; what is absent is None."""
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
        """Draws the objective against lr: every trial, the fit, the interval; returns the axes."""
        from lrsearch.report.plots.study import plot_response

        return plot_response(self.answer, self.stages, self.config.plan, self.config.total_steps, ax=ax)

    def plot_schedules(self, ax: Axes | None = None) -> Axes:
        """Draws the lr of the finalists over the training; returns the axes."""
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
        """Draws a metric (by default the objective's) of the finalists' first seed over the steps."""
        from lrsearch.report.plots.study import plot_learning_curves

        name = metric or self.answer.metric
        curves = {}
        for finalist in self.answer.finalists:
            trials = self.trials_of(finalist)
            if trials:
                curves[finalist.name] = self.points(trials[0], name)
        return plot_learning_curves(curves, self.answer.winner.name, name, ax=ax)

    def points(self, trial: TrialResult, metric: str) -> tuple[list[int], list[float]]:
        """The steps and values that a training recorded of a metric; both empty where there are none."""
        for path in self.folder.journals():
            if read_start(path).tags.get("lrsearch.trial_key") == trial.spec.key:
                steps, values = read_run(path).metric(metric)
                return list(steps), list(values)
        return [], []

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Writes the report, one page of HTML, by default `report.html` in the study's folder; returns where.

        Raises InputError where the path cannot be written.
        """
        from lrsearch.study.gather import write_report

        return write_report(self.folder, path, (self.answer, self.stages))

    def _rows(self) -> list[dict[str, Any]]:
        objective = self.config.plan.objective
        rows = []
        for stage in self.stages:
            for number, trial in enumerate(stage.trials):
                loss = objective.as_loss(trial) if trial.status == "complete" else None
                rows.append(
                    {
                        "stage": stage.stage,
                        "trial": number,
                        "lr": trial.spec.lr,
                        "schedule": schedule_name(trial.spec.schedule),
                        "seed": trial.spec.seed,
                        "steps": trial.spec.steps,
                        "optimizer": trial.spec.optimizer,
                        "status": trial.status,
                        "objective": None if loss is None else objective.from_loss(loss),
                        "steps_done": trial.steps_done,
                        "seconds": trial.seconds,
                        "cause": trial.cause,
                        **{f"{name}_final": s.final for name, s in trial.metrics.items()},
                    }
                )
        return rows

    def _repr_html_(self) -> str:
        from lrsearch.report.study import study_html

        return study_html(self.answer, self.stages, self.name)


def load_study(folder: StudyFolder) -> StudyResult:
    """Reads a finished study from its folder; RecordError where a file is missing or damaged."""
    config = load_config(folder)
    answer, stages = read_result(folder)
    starts = [read_start(path) for path in folder.journals()]
    key = next((start.key for start in starts if start.kind == "study"), None)
    return StudyResult(folder.name, answer, stages, config, folder, key=key)


def load(name: str) -> Any:
    """The result of an earlier study or range test, by its name: a `StudyResult` or a `RangeTest`.

    Raises InputError for an unknown name, listing those there are, and RecordError for one that is not
    finished or damaged.
    """
    from lrsearch.study.sweep_result import load_range_test

    folder = find_folder(name)
    return load_study(folder) if folder.plan.is_file() else load_range_test(folder)
