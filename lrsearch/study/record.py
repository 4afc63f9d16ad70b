"""A study on its way into its folder: one run for the study, and flat below it one for every training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict, Unpack

from lrsearch.core.answer import Answer, Finalist, StageResult
from lrsearch.core.curve import RangeTestCurve
from lrsearch.core.objective import Objective, direction_of
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.suggestion import Suggestion
from lrsearch.core.sweep_plan import SweepPlan
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.errors import RecordError
from lrsearch.report.study import describe_study
from lrsearch.study.sweep_record import STAGE, RangeTestRecord, data_inputs, read_range_test
from lrsearch.tracking.destination import Destination
from lrsearch.tracking.entries import Kind, Param, RunStart, as_params
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.journal import RunJournal
from lrsearch.tracking.provenance import collect
from lrsearch.tracking.reading import RunRecord, read_runs, read_start
from lrsearch.tracking.sync import start_mirror

_TRIAL_KEY = "lrsearch.trial_key"
_WINNER = "lrsearch.winner"


class About(TypedDict):
    """What a study is about.

    `params` hold for every training (model, batch_size, the task's arguments) and stand on every run, `tags`
    are the user's; `data` is what `describe_data` says, by context. `steps_per_epoch` is None where unknown.
    """

    task: str
    objective: Objective
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    data: Mapping[str, Any]
    steps_per_epoch: int | None


class StudyRecord:
    """Records a study; used as a context manager, which ends its run as the study ended.

    `finished` holds the result of every trial that is done, by its ``spec.key``; `key` is that of the study's
    run; `damage` says what of an earlier record could not be read. `resumable` holds the keys of the trials
    that were cut short and of which every point was found: they may go on in the middle, others begin anew.
    Whatever is recorded raises RecordError where the folder cannot be written.
    """

    def __init__(
        self, folder: StudyFolder, destination: Destination, about: About, earlier: Sequence[RunRecord]
    ) -> None:
        """Use `create` or `resume`."""
        self.folder = folder
        self.finished: dict[str, TrialResult] = {}
        self.damage: list[str] = []
        self.resumable: set[str] = set()
        self._destination = destination
        self._about = about
        self._provenance = collect()
        self._sweeps: list[RunRecord] = []
        self._range_test: RangeTestRecord | None = None
        self._unfinished: dict[str, Path] = {}
        self._paths: dict[str, Path] = {}
        self._winners: set[str] = set()
        study = next((run for run in earlier if run.start.kind == "study"), None)
        self._journal = (
            RunJournal.resume(study.path, folder) if study else RunJournal.create(folder, self._study_start())
        )
        self._stages = study.stages if study else []
        self.key = self._journal.key
        self.mirror = start_mirror(folder, destination)
        for run in earlier:
            self._take_up(run)

    @classmethod
    def create(cls, folder: StudyFolder, destination: Destination, **about: Unpack[About]) -> StudyRecord:
        """Begin the record of a new study, and start its mirror."""
        return cls(folder, destination, about, ())

    @classmethod
    def resume(cls, folder: StudyFolder, destination: Destination, **about: Unpack[About]) -> StudyRecord:
        """Go on with a study that had stopped: its runs are the same ones.

        A trial whose result is recorded is finished, and its run is ended now where it was not; any other
        begins again in its run, and what is recorded of it stays. Raises RecordError where the study's own
        run cannot be read and others can.
        """
        runs, damage = read_runs(folder)
        if runs and not any(run.start.kind == "study" for run in runs):
            raise RecordError("; ".join([f"no study is recorded in {folder.path}", *damage]))
        record = cls(folder, destination, about, runs)
        record.damage += damage
        return record

    def trial(self, spec: TrialSpec, number: int) -> TrialRecord:
        """The record of a trial that is about to begin; `number` counts within its stage."""
        return TrialRecord(self, spec, number)

    def range_test(self, plan: SweepPlan) -> RangeTestRecord:
        """The record of the range test, whose runs are children of the study's run too."""
        about = self._about
        self._range_test = RangeTestRecord(
            folder=self.folder,
            destination=self._destination,
            task=about["task"],
            plan=plan,
            params=about["params"],
            tags=about["tags"],
            data=about["data"],
            parent=self.key,
            earlier=self._sweeps,
        )
        return self._range_test

    def finished_range_test(self, plan: SweepPlan) -> tuple[tuple[RangeTestCurve, ...], Suggestion] | None:
        """The curves and the suggestion of an earlier range test that finished under this plan, else None."""
        found = (read_range_test(run, plan) for run in self._sweeps)
        return next((result for result in found if result is not None), None)

    def mark_winner(self, keys: Sequence[str]) -> None:
        """Tag the runs of these finished trials as the winner's, and no others."""
        for key in self._winners.symmetric_difference(keys):
            with RunJournal.amend(self._paths[key], self.folder) as run:
                run.tags({_WINNER: "true" if key in keys else "false"})
        self._winners = set(keys)

    def stage_ended(self, result: StageResult) -> None:
        """Record what a stage found, unless it is on record: a resumed study runs its stages again."""
        plain = {**result.to_dict(), "trials": [trial.spec.key for trial in result.trials]}
        values = json.loads(json.dumps(plain))
        if values not in self._stages:
            self._journal.stage(values)

    def attach(self, key: str, path: str) -> None:
        """Add a file to the run of a finished trial; `path` is relative to the study's folder."""
        with RunJournal.amend(self._paths[key], self.folder) as run:
            run.artifact(path)

    def conclude(
        self,
        plan: StudyPlan,
        answer: Answer,
        summary: Mapping[str, float],
        artifacts: Sequence[str] = (),
    ) -> None:
        """Record the answer on the study's run: its params, description, summary and files.

        `artifacts` are named relative to the study's folder.
        """
        self._journal.params({"lr": answer.lr, **schedule_params(answer.schedule)})
        self._journal.result({"answer": answer.to_dict()})
        self._journal.summary(summary)
        description = describe_study(answer, plan, self._links(answer))
        self._journal.tags({"mlflow.note.content": description})
        for path in artifacts:
            self._journal.artifact(path)

    def _links(self, answer: Answer) -> dict[str, str]:
        """What the description links, by its words: the mirror puts MLflow's addresses there."""
        runs = {
            "range test": self._range_test_key(),
            f"winner ({answer.winner.name})": self._key_of(answer.winner),
            "best constant lr": self._key_of(answer.constant),
        }
        views = {
            "table of the trials": "{view:trials}",
            "charts of the trials": "{view:trials-charts}",
            "charts of the range test": "{view:range-test-charts}",
        }
        return {**{words: f"{{run:{key}}}" for words, key in runs.items() if key}, **views}

    def _range_test_key(self) -> str | None:
        if self._range_test is not None:
            return self._range_test.key
        done = [run.start.key for run in self._sweeps if run.start.kind == "range_test" and run.result]
        return done[-1] if done else None

    def _key_of(self, finalist: Finalist | None) -> str | None:
        """The key of the run of a finalist's first training in the confirm stage."""
        if finalist is None:
            return None
        for key, result in self.finished.items():
            spec = result.spec
            if spec.configuration == finalist.configuration and spec.seed in finalist.objectives:
                return read_start(self._paths[key]).key
        return None

    def __enter__(self) -> StudyRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, error, trace)

    def _take_up(self, run: RunRecord) -> None:
        self.damage += run.damage
        if run.start.stage == STAGE:
            self._sweeps.append(run)
        if (key := run.start.tags.get(_TRIAL_KEY)) is None:
            return
        if run.result is None:
            self._unfinished[key] = run.path
            # An unfinished last line is what a kill leaves, and younger than any checkpoint.
            if all(line.endswith("is unfinished") for line in run.damage):
                self.resumable.add(key)
            return
        result = TrialResult.from_dict(run.result)
        if run.end is None or run.end.status == "KILLED":
            with RunJournal.resume(run.path, self.folder) as journal:
                self._end_trial(journal, result)
        self._keep(result, run.path)
        if run.tags.get(_WINNER) == "true":
            self._winners.add(key)

    def _keep(self, result: TrialResult, path: Path) -> None:
        self.finished[result.spec.key] = result
        self._paths[result.spec.key] = path

    def _open_trial(self, spec: TrialSpec, number: int, model_info: Mapping[str, Any]) -> RunJournal:
        if (path := self._unfinished.pop(spec.key, None)) is not None:
            return RunJournal.resume(path, self.folder)
        return RunJournal.create(self.folder, self._trial_start(spec, number, model_info))

    def _end_trial(self, journal: RunJournal, result: TrialResult) -> None:
        tags = {"lrsearch.cause": result.cause, "mlflow.note.content": "\n\n".join(result.warnings)}
        journal.tags({name: text for name, text in tags.items() if text})
        journal.summary(self._summary(result))
        journal.end("FAILED" if result.status == "failed" else "FINISHED", result.error)

    def _summary(self, result: TrialResult) -> dict[str, float]:
        objective = self._about["objective"]
        summary = {
            "diverged": float(result.status == "diverged"),
            "seconds": result.seconds,
            "steps_done": float(result.steps_done),
        }
        for name, metric in result.metrics.items():
            towards = objective.towards if name == objective.metric else direction_of(name)
            summary[f"{name}_final"] = metric.final
            if towards is not None:
                summary[f"{name}_best"] = metric.read("best", towards)
        loss = objective.as_loss(result)
        if result.status == "complete" and loss is not None:
            summary["objective"] = objective.from_loss(loss)
        return summary

    def _study_start(self) -> RunStart:
        objective = self._about["objective"]
        own = {"objective": objective.metric, "direction": objective.towards}
        return self._start(self.folder.name, "study", own)

    def _trial_start(self, spec: TrialSpec, number: int, model_info: Mapping[str, Any]) -> RunStart:
        own = {
            **as_params(model_info),
            "stage": spec.stage,
            "trial": number,
            "seed": spec.seed,
            "lr": spec.lr,
            **schedule_params(spec.schedule),
            "steps": spec.steps,
        }
        if per_epoch := self._about["steps_per_epoch"]:
            own["epochs"] = f"{spec.steps / per_epoch:g}"
        name = f"{spec.stage}-{number:02d}"
        return self._start(name, "trial", own, spec.stage, self.key, {_TRIAL_KEY: spec.key})

    def _start(
        self,
        name: str,
        kind: Kind,
        params: Mapping[str, Param],
        stage: str | None = None,
        parent: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> RunStart:
        about = self._about
        return RunStart(
            name=name,
            kind=kind,
            study=self.folder.name,
            stage=stage,
            parent=parent,
            params={**as_params(about["params"]), "task": about["task"], **params},
            tags={**about["tags"], **(tags or {})},
            inputs=data_inputs(about["data"]),
            provenance=self._provenance,
        )


class TrialRecord:
    """Records one trial; a context manager, which ends its run as it ended, and the training's observer.

    The run is opened by the first call. A trial of the same key that was cut short goes on in its run.
    """

    def __init__(self, study: StudyRecord, spec: TrialSpec, number: int) -> None:
        self._study = study
        self._spec = spec
        self._number = number
        self._journal: RunJournal | None = None

    def begin(self, model_info: Mapping[str, Any]) -> None:
        """Open the run; `model_info` say what is trained."""
        self._open(model_info)

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics after `step` updates."""
        (self._journal or self._open({})).point(step, metrics)

    def flush(self) -> None:
        """Wait until the disk has all that is recorded so far; RecordError where it cannot."""
        if self._journal is None:
            return
        self._journal.sync()

    def finish(self, result: TrialResult) -> None:
        """Record the result, then the summaries, and end the run."""
        journal = self._journal or self._open({})
        journal.result(result.to_dict())
        self._study._end_trial(journal, result)
        self._study._keep(result, journal.path)

    def __enter__(self) -> TrialRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is not None:
            self._journal.__exit__(kind, error, trace)

    def _open(self, model_info: Mapping[str, Any]) -> RunJournal:
        self._journal = self._study._open_trial(self._spec, self._number, model_info)
        return self._journal


def schedule_params(schedule: Mapping[str, Any], prefix: str = "schedule") -> dict[str, Param]:
    """The params `schedule` and `schedule.<param>`; a schedule inside another is flattened likewise."""
    params: dict[str, Param] = {prefix: schedule["name"]}
    for name, value in schedule.items():
        if isinstance(value, Mapping):
            params |= schedule_params(value, f"{prefix}.{name}")
        elif name != "name":
            params |= as_params({f"{prefix}.{name}": value})
    return params
