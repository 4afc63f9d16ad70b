"""A range test on its way into its folder: journal first, then files, and the mirror that fills MLflow."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from io import StringIO
from types import TracebackType
from typing import Any

from lrsearch.core.curve import RangeTestCurve, RunningAverage
from lrsearch.core.observer import Observer
from lrsearch.core.suggestion import Suggestion
from lrsearch.core.sweep_plan import SweepPlan
from lrsearch.files import write_json, write_whole
from lrsearch.report.range_test import describe_range_test
from lrsearch.tracking.destination import Destination
from lrsearch.tracking.entries import DataInput, Kind, RunStart, as_params
from lrsearch.tracking.folder import StudyFolder, home
from lrsearch.tracking.journal import RunJournal
from lrsearch.tracking.provenance import collect
from lrsearch.tracking.reading import RunRecord
from lrsearch.tracking.sync import Mirror, start_mirror

STAGE = "range-test"


class RangeTestRecord(Observer):
    """Records one range test; used as a context manager, which ends its runs as they ended.

    Nothing is written before the first finite loss or the end, so that a wrong input leaves no run behind. A
    single seed's points stand in the range test's own run; of several seeds each has a run of its own below
    it.

    In a study (`parent` is the key of its run) all of these are that run's children, and the study's mirror
    sends them. Of its `earlier` runs, those of the same name and settings go on.
    """

    def __init__(
        self,
        folder: StudyFolder,
        destination: Destination,
        task: str,
        plan: SweepPlan,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        data: Mapping[str, Any],
        parent: str | None = None,
        earlier: Sequence[RunRecord] = (),
    ) -> None:
        self.folder = folder
        self.mirror: Mirror | None = None
        self.key: str | None = None
        self._destination = destination
        self._task = task
        self._plan = plan
        self._params = dict(params)
        self._tags = dict(tags)
        self._data = data
        self._parent = parent
        self._name = STAGE if parent else folder.name
        self._earlier = earlier
        self._open = ExitStack()
        self._seed: int | None = None
        self._average = RunningAverage(plan.smoothing)
        self._model_info: Mapping[str, Any] = {}
        self._steps = 0

    def sweep_begins(self, seed: int, steps: int, model_info: Mapping[str, Any]) -> None:  # noqa: ARG002
        """A seed's sweep is about to begin."""
        self._model_info, self._steps, self._seed = model_info, steps, None
        self._average = RunningAverage(self._plan.smoothing)

    def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:
        """Record a step; the first of a seed opens its run."""
        if self._seed != seed:
            self._journal = self._open_run(seed)
            self._seed = seed
        metrics = {"lr": lr, "train/loss": loss, "train/loss_smoothed": self._average(loss)}
        self._journal.point(step, metrics)

    def swept(self, curve: RangeTestCurve) -> None:
        """Record that a seed's sweep is done: a resumed range test does not sweep it again."""
        if self._seed != curve.seed:
            self._seed, self._journal = curve.seed, self._open_run(curve.seed)
        self._journal.result({"curve": curve.to_dict(), "plan": self._plan.model_dump(mode="json")})

    def swept_before(self, seed: int) -> RangeTestCurve | None:
        """The curve of a seed that was swept before the range test was cut short; its run goes on."""
        name = self._name if self._plan.repeats == 1 else f"{self._name}/seed-{seed}"
        for run in self._earlier:
            done = run.result or {}
            if (
                run.start.name == name
                and "curve" in done
                and done["plan"] == self._plan.model_dump(mode="json")
            ):
                self._steps = run.start.params["steps"]  # type: ignore[assignment]
                self._seed, self._journal = seed, self._open_run(seed)
                return RangeTestCurve.from_dict(done["curve"])
        return None

    def finish(self, curves: Sequence[RangeTestCurve], suggestion: Suggestion) -> None:
        """Write the result, the curves' files and the summary; leaving the context ends the runs."""
        self._main.result(
            {
                "plan": self._plan.model_dump(mode="json"),
                "curves": [curve.to_dict() for curve in curves],
                "suggestion": suggestion.to_dict(),
            }
        )
        write_curves(self.folder, self._task, curves, suggestion)
        for name in ("curve.csv", "curve.json", "curve.png"):
            self._main.artifact(name)
        bracket = suggestion.bracket
        summary = {
            "suggested_lr": suggestion.lr,
            "bracket_low": bracket.low if bracket else None,
            "bracket_high": bracket.high if bracket else None,
            "steps_done": sum(curve.steps for curve in curves),
            **{f"rule_{name}": lr for name, lr in suggestion.rules.items()},
        }
        self._main.summary({name: float(value) for name, value in summary.items() if value is not None})
        description = describe_range_test(suggestion)
        self._main.tags({"lrsearch.verdict": suggestion.verdict, "mlflow.note.content": description})

    def __enter__(self) -> RangeTestRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if self.key is None and self._parent is None:
            self._discard()

    def _discard(self) -> None:
        """Nothing came of it: leave no empty folder behind, but a place that the user named."""
        self.folder.journal.rmdir()
        if self.folder.path.parent == home():
            self.folder.path.rmdir()

    @cached_property
    def _main(self) -> RunJournal:
        """The range test's own run, opened when it is first needed."""
        main = self._go_on_or_create(self._name, "range_test", self._plan.seed, self._parent)
        self.key = main.key
        if self._parent is None:
            self.mirror = start_mirror(self.folder, self._destination)
        return main

    def _open_run(self, seed: int) -> RunJournal:
        main = self._main
        if self._plan.repeats == 1:
            return main
        return self._go_on_or_create(f"{self._name}/seed-{seed}", "trial", seed, self._parent or main.key)

    def _go_on_or_create(self, name: str, kind: Kind, seed: int, parent: str | None) -> RunJournal:
        plan = self._plan
        settings = {
            "task": self._task,
            "stage": STAGE,
            "seed": seed,
            "schedule": "sweep",
            "schedule.min_lr": plan.min_lr,
            "schedule.max_lr": plan.max_lr,
            "schedule.spacing": plan.spacing,
            "steps": self._steps,
            **plan.model_dump(include={"repeats", "smoothing", "stop", "accumulate", "clip", "precision"}),
        }
        for run in self._earlier:
            known = run.start.params
            if run.start.name == name and all(known.get(key) == value for key, value in settings.items()):
                return self._open.enter_context(RunJournal.resume(run.path, self.folder))
        start = RunStart(
            name=name,
            kind=kind,
            study=self.folder.name,
            stage=STAGE,
            parent=parent,
            params=as_params(self._params) | as_params(self._model_info) | as_params(settings),
            tags=self._tags,
            inputs=data_inputs(self._data),
            provenance=self._provenance,
        )
        return self._open.enter_context(RunJournal.create(self.folder, start))

    @cached_property
    def _provenance(self) -> dict[str, Any]:
        return collect()


def read_range_test(run: RunRecord, plan: SweepPlan) -> tuple[tuple[RangeTestCurve, ...], Suggestion] | None:
    """The curves and the suggestion of a range test that finished under this plan; None for any other run."""
    done = run.end is not None and run.end.status == "FINISHED"
    if run.start.kind != "range_test" or "suggestion" not in (run.result or {}) or not done:
        return None
    if run.result is None or run.result["plan"] != plan.model_dump(mode="json"):
        return None
    curves = tuple(RangeTestCurve.from_dict(curve) for curve in run.result["curves"])
    return curves, Suggestion.from_dict(run.result["suggestion"])


def write_curves(
    folder: StudyFolder, task: str, curves: Sequence[RangeTestCurve], suggestion: Suggestion
) -> None:
    """Write `curve.json`, `curve.csv` (one row a step) and `curve.png` into the folder.

    Raises RecordError where they cannot be written.
    """
    from lrsearch.report.plots.range_test import file_axes, plot_range_test, png

    write_json(
        folder.path / "curve.json",
        {"task": task, "suggestion": suggestion.to_dict(), "curves": [curve.to_dict() for curve in curves]},
    )
    table = StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(curves[0].columns())
    for curve in curves:
        writer.writerows(zip(*curve.columns().values(), strict=True))
    write_whole(folder.path / "curve.csv", table.getvalue())
    write_whole(
        folder.path / "curve.png", png(plot_range_test(curves, suggestion, title=task, ax=file_axes()))
    )


def data_inputs(data: Mapping[str, Any]) -> tuple[DataInput, ...]:
    """What `describe_data` says of the data of each context (train, val), as a run's inputs."""
    return tuple(
        DataInput(
            name=described["name"],
            context=context,
            digest=described["fingerprint"] or "unknown",
            profile={
                name: described[name]
                for name in ("items", "batches", "fingerprint_reason")
                if name in described
            },
        )
        for context, described in data.items()
        if described is not None
    )
