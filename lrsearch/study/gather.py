"""From a study's folder to its report: whole, half done, or damaged, and with the task gone."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lrsearch.core.answer import Answer, Finalist, StageResult
from lrsearch.core.curve import Array, RangeTestCurve
from lrsearch.core.findings import SweepFindings
from lrsearch.core.procedure import best_so_far
from lrsearch.core.study_plan import STAGES
from lrsearch.core.suggest import combine, suggest
from lrsearch.core.suggestion import Suggestion
from lrsearch.core.trial import TrialResult
from lrsearch.errors import InputError, RecordError
from lrsearch.files import whole_file
from lrsearch.report.study_page_data import Commands, Origin, ReportData, State
from lrsearch.schedules import schedule_from_dict
from lrsearch.study.config import StudyConfig, load_config
from lrsearch.study.files import read_result
from lrsearch.study.sweep_record import STAGE
from lrsearch.tracking import destination as destinations
from lrsearch.tracking.folder import StudyFolder, home
from lrsearch.tracking.provenance import clean
from lrsearch.tracking.reading import RunRecord, read_runs

InHand = tuple[Answer, tuple[StageResult, ...]]
"""A study's answer and stages."""


def write_report(
    folder: StudyFolder, path: str | os.PathLike[str] | None = None, in_hand: InHand | None = None
) -> Path:
    """Write the report of a study, by default into its folder, and return where; `in_hand` is not read again.

    Of an unfinished or damaged study it shows what there is, and says so. Raises InputError where the path
    cannot be written, and RecordError where the folder holds no study, or one of another lrsearch.
    """
    from lrsearch.report.page import draw, page

    data = gather(folder, in_hand)
    return write_page(page(data, draw(data), clean), folder.report if path is None else Path(path))


def write_page(text: str, path: Path) -> Path:
    """Write a page, whole; InputError where the path cannot be written."""
    try:
        if path.exists() and not path.is_file():  # such as /dev/stdout
            path.write_text(text, encoding="utf-8")
        else:
            with whole_file(path.resolve()) as file:
                file.write(text.encode())
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        raise InputError("out", str(path), problem, "choose another place") from error
    return path.absolute()


def gather(folder: StudyFolder, in_hand: InHand | None = None) -> ReportData:
    """Return all that the report of a study shows; what is `in_hand` is not read from the folder.

    Raises RecordError where the folder holds no study, or one of another lrsearch.
    """
    config = load_config(folder)
    runs, damage = read_runs(folder)
    damage += [line for run in runs for line in run.damage]
    sweep = _range_test(folder, runs)
    if in_hand is not None:
        found = _Found(*in_hand, finished=True)
    else:
        found = _tell(folder, config, runs, sweep, damage)
    study = next((run for run in runs if run.start.kind == "study"), None)
    state, problem = ("finished", None) if found.finished else _state(study)
    answer = found.answer
    return ReportData(
        name=folder.name,
        task=config.task,
        state=state,
        problem=problem,
        damage=damage,
        plan=config.plan,
        total_steps=config.total_steps,
        steps_per_epoch=config.steps_per_epoch,
        settings={**config.model_info, **config.task_kwargs},
        tags=study.start.tags if study else {},
        data=config.data,
        stages=found.stages,
        answer=answer,
        so_far=found.so_far,
        code=None if answer is None else config.code(answer),
        curves=sweep.curves,
        suggestion=sweep.suggestion,
        sweep_seconds=sweep.seconds,
        schedules={} if answer is None else _schedules(config, answer),
        learning={} if answer is None else _learning(config, answer, found.stages, runs),
        origins=_origins(runs),
        tracking=_tracking(folder),
        commands=_commands(folder, config, study),
    )


@dataclass(frozen=True)
class _Found:
    """What a study found, as far as it came."""

    answer: Answer | None
    stages: tuple[StageResult, ...]
    so_far: Answer | None = None
    finished: bool = False


@dataclass(frozen=True)
class _RangeTest:
    """The curves on record; `done` says whether it came to its end."""

    curves: tuple[RangeTestCurve, ...]
    suggestion: Suggestion | None
    seconds: float
    done: bool


def _tell(
    folder: StudyFolder, config: StudyConfig, runs: Sequence[RunRecord], sweep: _RangeTest, damage: list[str]
) -> _Found:
    """What the study found, from its result, else from its journals."""
    if folder.result.is_file():
        try:
            return _Found(*read_result(folder), finished=True)
        except RecordError as error:
            damage.append(f"{error}; this page was made from the journals")
    study = next((run for run in runs if run.start.kind == "study"), None)
    ended = study is not None and study.end is not None and study.end.status == "FINISHED"
    if ended and not folder.result.is_file():
        damage.append(f"{folder.result} is missing; this page was made from the journals")
    stages = _stages(config, study, runs, sweep)
    if study is not None and study.result is not None:
        return _Found(Answer.from_dict(study.result["answer"]), stages, finished=ended)
    return _Found(None, stages, best_so_far(config.plan, config.total_steps, stages))


def _stages(
    config: StudyConfig, study: RunRecord | None, runs: Sequence[RunRecord], sweep: _RangeTest
) -> tuple[StageResult, ...]:
    """Every stage as its end was journalled, and of the one that was cut short the trials that there are."""
    trials = {
        trial.spec.key: trial
        for run in runs
        if run.result and "spec" in run.result
        for trial in [TrialResult.from_dict(run.result)]
    }
    ended = {values["stage"]: values for values in (study.stages if study else ())}
    found: list[StageResult] = []
    told: set[str] = set()
    for stage in STAGES:
        if stage in ended:
            keys = [key for key in ended[stage]["trials"] if key in trials]
            whole = {**ended[stage], "trials": [trials[key].to_dict() for key in keys]}
            found.append(StageResult.from_dict(whole))
            told.update(keys)
        elif stage == "range-test":
            steps = sum(curve.steps for curve in sweep.curves)
            findings = SweepFindings.of(sweep.suggestion) if sweep.suggestion and sweep.done else None
            found.append(StageResult(stage, (), steps / config.total_steps, findings))
        elif rest := [t for key, t in trials.items() if key not in told and t.spec.stage == stage]:
            cost = sum(trial.steps_done for trial in rest) / config.total_steps
            found.append(StageResult(stage, tuple(rest), cost))
    return tuple(found)


def _state(study: RunRecord | None) -> tuple[State, str | None]:
    """How far an unfinished study is, and why it failed."""
    if study is None:
        return "interrupted", None
    if study.end is None and study.writer is not None:
        alive = study.writer.alive()
        if alive is None:
            return "running", f"Whether it still runs on {study.writer.host} cannot be told from here."
        return ("running" if alive else "interrupted"), None
    if study.end is not None and study.end.status == "FAILED":
        lines = (study.end.error or "no message").strip().splitlines()
        return "failed", lines[-1]
    return "interrupted", None


def _range_test(folder: StudyFolder, runs: Sequence[RunRecord]) -> _RangeTest:
    """The range test as its run recorded it, else as its file has it, else from the points of its steps."""
    swept = [run for run in runs if run.start.stage == STAGE]
    seconds = sum(map(_seconds, swept))
    values = next((r.result for r in swept if r.start.kind == "range_test" and r.result is not None), None)
    try:
        values = values or json.loads((folder.path / "curve.json").read_text(encoding="utf-8"))
        curves = tuple(RangeTestCurve.from_dict(curve) for curve in values["curves"])
        return _RangeTest(curves, Suggestion.from_dict(values["suggestion"]), seconds, done=True)
    except (OSError, ValueError, KeyError, TypeError):
        curves = tuple(curve for run in swept if (curve := _curve(run)).steps)
        found = combine([suggest(curve) for curve in curves]) if curves else None
        return _RangeTest(curves, found, seconds, done=False)


def _seconds(run: RunRecord) -> float:
    times = [ms for group in run.groups for ms in group.ms]
    return (max(times) - min(times)) / 1000 if times else 0.0


def _curve(run: RunRecord) -> RangeTestCurve:
    """As much of a sweep as was recorded."""
    import numpy as np

    lrs, losses = (np.asarray(run.metric(name)[1], dtype=np.float64) for name in ("lr", "train/loss"))
    return RangeTestCurve(lrs, losses, seed=int(run.start.params.get("seed") or 0))


def _schedules(config: StudyConfig, answer: Answer) -> dict[str, Array]:
    return {
        finalist.name: schedule_from_dict(finalist.schedule).curve(
            finalist.lr, config.total_steps, config.steps_per_epoch
        )
        for finalist in answer.finalists
    }


def _learning(
    config: StudyConfig, answer: Answer, stages: Sequence[StageResult], runs: Sequence[RunRecord]
) -> dict[str, dict[str, tuple[Sequence[int], Sequence[float]]]]:
    """The objective and the training loss over the first seed: the best and the constant one, or all
    finalists where these are the same.
    """
    constant = answer.constant
    shown = answer.finalists
    if constant is not None and constant is not answer.winner:
        shown = (answer.winner, constant)
    by_key = {run.start.tags.get("lrsearch.trial_key"): run for run in runs}
    curves: dict[str, dict[str, tuple[Sequence[int], Sequence[float]]]] = {}
    for metric in dict.fromkeys((config.plan.objective.metric, "train/loss")):
        curves[metric] = {}
        for finalist in shown:
            run = by_key.get(_first_key(finalist, stages))
            if run is not None:
                curves[metric][finalist.name] = run.metric(metric)
    return curves


def _first_key(finalist: Finalist, stages: Sequence[StageResult]) -> str:
    """The key of a finalist's first training in the confirm stage."""
    for trial in stages[-1].trials:
        if trial.spec.configuration == finalist.configuration:
            return trial.spec.key
    return ""


def _origins(runs: Sequence[RunRecord]) -> list[Origin]:
    """Every provenance there is on record, in order, each once."""
    origins: dict[str, Origin] = {}
    for run in runs:
        began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.start.started / 1000))
        if run.start.provenance:
            facts = json.dumps(run.start.provenance, sort_keys=True)
            origins.setdefault(facts, Origin(began, run.start.provenance))
    return list(origins.values())


def _commands(folder: StudyFolder, config: StudyConfig, study: RunRecord | None) -> Commands:
    name = folder.name if folder.path.parent == home() else str(folder.path)
    word = shlex.quote(name)
    resume = f"lrsearch resume {word}"
    typed = None
    if config.source is None:
        resume = f"lrsearch.search(task, name={name!r}, resume=True)  # in Python, with the same task"
    elif study is not None and study.start.provenance.get("command"):
        program, *words = shlex.split(study.start.provenance["command"])
        typed = shlex.join([Path(program).name, *words])
    return Commands(f"lrsearch reproduce {word}", resume, typed)


def _tracking(folder: StudyFolder) -> str | None:
    destination = destinations.load(folder)
    if destination is None:
        return None
    return f"{destination.redacted().tracking_uri}, experiment {destination.experiment}"
