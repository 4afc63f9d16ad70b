"""From a study's folder to its report: whole, half done, or damaged, and with the task gone."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.core.answer import Answer, Finalist, StageResult
from lrsearch.core.curve import Array, RangeTestCurve
from lrsearch.core.suggest import Suggestion, combine, suggest
from lrsearch.core.trial import TrialResult
from lrsearch.errors import InputError, RecordError
from lrsearch.report.study_page_data import Commands, Origin, ReportData, State
from lrsearch.schedules import schedule_from_dict
from lrsearch.study.config import StudyConfig, load_config
from lrsearch.study.sweep_record import STAGE
from lrsearch.tracking import destination as destinations
from lrsearch.tracking import entries
from lrsearch.tracking.folder import StudyFolder, home
from lrsearch.tracking.provenance import redact
from lrsearch.tracking.reading import RunRecord, read_run

if TYPE_CHECKING:
    from lrsearch.study.result import StudyResult

_SECRET_NAME = re.compile("passw|passphrase|token|secret|credential|api_?key|access_?key", re.IGNORECASE)
_SHORTEST_SECRET = 6


def write_report(
    folder: StudyFolder, path: str | os.PathLike[str] | None = None, result: StudyResult | None = None
) -> Path:
    """Writes the report of a study, by default into its folder, and returns where; `result` saves reading it.

    Of an unfinished or damaged study it shows what there is, and says so. Raises InputError where the path
    cannot be written, and RecordError where the folder holds no study, or one of a newer lrsearch.
    """
    from lrsearch.report.page import draw, page

    data = gather(folder, result)
    return write_page(page(data, draw(data), clean), folder.report if path is None else Path(path))


def write_page(text: str, path: Path) -> Path:
    """Writes a page; InputError where the path cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        raise InputError("out", str(path), problem, "choose another place") from error
    return path.absolute()


def clean(text: str) -> str:
    """A text without passwords in URLs and without the secrets that the environment holds now."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return redact(text)


def gather(folder: StudyFolder, result: StudyResult | None = None) -> ReportData:
    """All that the report of a study shows; `result` where it was just made, else it is read.

    Raises RecordError where the folder holds no study, or one of a newer lrsearch.
    """
    config = load_config(folder)
    runs, damage = _read_runs(folder)
    sweep = _range_test(folder, runs)
    finished = True
    if result is not None:
        told = _Told(result.answer, result.stages)
    else:
        told, finished = _tell(folder, config, runs, sweep, damage)
    study = next((run for run in runs if run.start.kind == "study"), None)
    state, problem = ("finished", None) if finished else _state(study)
    answer = told.answer
    return ReportData(
        name=folder.name,
        task=config.task,
        state=state,
        problem=told.problem or problem,
        damage=damage,
        plan=config.plan,
        total_steps=config.total_steps,
        steps_per_epoch=config.steps_per_epoch,
        settings={**config.model_info, **config.task_kwargs},
        tags=study.start.tags if study else {},
        data=config.data,
        stages=told.stages,
        answer=answer,
        so_far=told.so_far,
        code=None if answer is None else _code(config, answer),
        curves=sweep.curves,
        suggestion=sweep.suggestion,
        sweep_seconds=sweep.seconds,
        schedules={} if answer is None else _schedules(config, answer),
        learning={} if answer is None else _learning(config, answer, told.stages, runs),
        origins=_origins(runs),
        tracking=_tracking(folder),
        commands=_commands(folder, config, study),
    )


@dataclass(frozen=True)
class _Told:
    """What a study found, read or told again."""

    answer: Answer | None
    stages: tuple[StageResult, ...]
    so_far: Answer | None = None
    problem: str | None = None


@dataclass(frozen=True)
class _RangeTest:
    """The curves on record; without a suggestion the range test was not done."""

    curves: tuple[RangeTestCurve, ...]
    suggestion: Suggestion | None
    seconds: float
    done: bool


def _read_runs(folder: StudyFolder) -> tuple[list[RunRecord], list[str]]:
    """Every run in the order in which they began, and what of them cannot be read."""
    runs, damage = [], []
    for path in folder.journals():
        try:
            run = read_run(path)
        except RecordError as error:
            _refuse_newer(path)
            damage.append(str(error))
        else:
            runs.append(run)
            damage += run.damage
    return sorted(runs, key=lambda run: run.start.started), damage


def _refuse_newer(path: Path) -> None:
    """Raise RecordError for a journal of a newer lrsearch."""
    with path.open("rb") as file:
        line = file.readline()
    try:
        form = json.loads(line[9:])["format"]
    except (ValueError, KeyError, TypeError):
        return
    if isinstance(form, int) and form > entries.FORMAT:
        raise RecordError(
            f"{path} is of format {form}: a newer lrsearch wrote it; update lrsearch to read it"
        )


def _tell(
    folder: StudyFolder, config: StudyConfig, runs: Sequence[RunRecord], sweep: _RangeTest, damage: list[str]
) -> tuple[_Told, bool]:
    """The study from its result, else told again from its journals; and whether it is finished."""
    from lrsearch.study.result import read_result

    ended = any(r.start.kind == "study" and r.end is not None and r.end.status == "FINISHED" for r in runs)
    if folder.result.is_file():
        try:
            return _Told(*read_result(folder)), True
        except RecordError as error:
            if _is_newer(folder.result):
                raise
            damage.append(f"{error}; this page was made from the journals")
    elif ended:
        damage.append(f"{folder.result} is missing; this page was made from the journals")
    told = _told_again(config, runs, sweep)
    return told, ended and told.answer is not None


def _is_newer(path: Path) -> bool:
    from lrsearch.study.result import FORMAT

    try:
        form = json.loads(path.read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(form, int) and form > FORMAT


def _told_again(config: StudyConfig, runs: Sequence[RunRecord], sweep: _RangeTest) -> _Told:
    """Every stage from the trials on record, as far as they go."""
    from lrsearch.study.stages_run import best_so_far, replay

    found: dict[str, Any] = {}
    suggestion = sweep.suggestion
    if suggestion is not None and sweep.done:
        found = {name: suggestion.to_dict()[name] for name in ("lr", "bracket", "verdict", "reason")}
    steps = sum(curve.steps for curve in sweep.curves)
    swept = StageResult("range-test", (), steps / config.total_steps, found)
    trials = [TrialResult.from_dict(run.result) for run in runs if run.result and "spec" in run.result]
    told = replay(config, swept, suggestion, {trial.spec.key: trial for trial in trials})
    answer = told.answer
    if answer is not None:
        study = next((run for run in runs if run.start.kind == "study"), None)
        answer = replace(answer, test=_tested(study.summary if study else {}))
    so_far = best_so_far(config, told.stages) if answer is None else None
    return _Told(answer, told.stages, so_far, told.problem)


def _tested(summary: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """What was read from the test data, out of the summary's ``test/loss_winner``."""
    test: dict[str, dict[str, float]] = {}
    for name, value in summary.items():
        metric, _, label = name.rpartition("_")
        if metric.startswith("test/"):
            test.setdefault(label, {})[metric] = value
    return test


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
    times = [ms for run in swept for group in run.groups for ms in group.ms]
    seconds = sum(_seconds(run) for run in swept) if times else 0.0
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


def _code(config: StudyConfig, answer: Answer) -> str:
    schedule = schedule_from_dict(answer.schedule)
    return schedule.code(answer.lr, config.total_steps, config.steps_per_epoch)


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
        spec = trial.spec
        if (spec.lr, spec.schedule, spec.optimizer) == (finalist.lr, finalist.schedule, None):
            return spec.key
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
