"""Does a study's winner come out the same again? It is trained once more and held against its record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lrsearch.core.trial import TrialSpec
from lrsearch.errors import InputError, RecordError
from lrsearch.study.load import load_study
from lrsearch.study.prepare import prepare
from lrsearch.study.result import StudyResult
from lrsearch.study.task_source import load_task
from lrsearch.tracking.folder import find_folder
from lrsearch.tracking.provenance import collect
from lrsearch.tracking.reading import RunRecord, read_run, read_start
from lrsearch.training.run_trial import run_trial
from lrsearch.training.subjects import FromTask

if TYPE_CHECKING:
    import torch

    from lrsearch.training.subjects import TaskFunction
    from lrsearch.training.task import Task
    from lrsearch.training.trial import TrainFunction

_WITHIN = 1.645 * math.sqrt(2.0)
"""In units of the noise: equal configurations on other random numbers differ by less in nine cases of ten."""
_VERDICTS = {
    "identical": "identical in every recorded point",
    "within_interval": "not identical, but within what other seeds would make of it",
    "different": "different",
}
_COMPARED = ("versions", "platform", "cpu", "git", "environment")


@dataclass(frozen=True)
class Difference:
    """The first point that came out otherwise; `now` is None where it did not come at all."""

    step: int
    metric: str
    recorded: float
    now: float | None


@dataclass(frozen=True)
class Reproduction:
    """What came of training the winner again.

    `verdict`: ``identical`` to the last bit in all `points`; ``within_interval``, where the objective differs
    by no more than other seeds would make it; or ``different``. `changes` name what is no longer as it was:
    versions, hardware, code, data, each then and now.
    """

    name: str
    verdict: Literal["identical", "within_interval", "different"]
    points: int
    recorded: float
    now: float | None
    first: Difference | None
    changes: Mapping[str, tuple[Any, Any]]

    def lines(self) -> list[str]:
        """What to say of it: the verdict, where it first differs, and what has changed since."""
        lines = [f"{self.name}: {_VERDICTS[self.verdict]}"]
        if self.first is not None:
            now = "is missing" if self.first.now is None else f"is {self.first.now!r}"
            where = f"at step {self.first.step}: {self.first.metric} was {self.first.recorded!r} and {now}"
            lines.append(f"first difference {where}")
        lines.append(
            f"objective then {self.recorded:.6g}, now {'none' if self.now is None else f'{self.now:.6g}'}"
        )
        return lines + [f"changed: {name} was {then}, is {now}" for name, (then, now) in self.changes.items()]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        changes = {name: {"then": then, "now": now} for name, (then, now) in self.changes.items()}
        return {**asdict(self), "changes": changes}


def reproduce(
    name: str,
    task: Task | TaskFunction | TrainFunction | None = None,
    *,
    device: str | torch.device | None = None,
) -> Reproduction:
    """Train a study's winner again, on its first fresh seed, and compare every recorded point.

    Parameters
    ----------
    name : str
        The name of a finished study, or the path of its folder.
    task : Task or function, optional
        The task, where it was handed over in Python. Otherwise it is made as it was on the command line.
    device : str or torch.device, optional
        Where to train; by default the accelerator that torch finds, else the CPU.

    Returns
    -------
    Reproduction
        Its `verdict` is ``identical``, ``within_interval`` or ``different``; `first` is the first point that
        differs, and `changes` name the versions, hardware, code and data that are no longer as they were.

    Raises
    ------
    InputError
        For an unknown name, or a task that cannot be made.
    RecordError
        If the study is not finished, or the winner's record is gone.

    Notes
    -----
    The verdict is ``within_interval`` where the points differ, but the objective by no more than
    ``1.645 * sqrt(2) * noise``: equal configurations on other seeds differ by less in nine cases out of ten.

    Examples
    --------
    Here "small" is the name of a study that is finished:

    >>> import lrsearch
    >>> again = lrsearch.reproduce("small", device="cpu")
    >>> again.verdict
    'identical'
    >>> print(again.lines()[0])
    small: identical in every recorded point
    """
    result = load_study(find_folder(name))
    spec, record = _winner(result)
    config = result.config
    if task is None:
        if config.source is None:
            raise InputError(
                "name",
                name,
                f"its task {config.task!r} was handed over in Python",
                f"call lrsearch.reproduce({name!r}, task)",
            )
        task = load_task(config.source, config.settings)
    setting = prepare(task, config.plan, device)
    recorded = dict(_points(record))
    again = _Again(recorded)
    subject = setting.subject
    trained = run_trial(
        subject.task if isinstance(subject, FromTask) else subject.train,
        spec,
        setting.device,
        again,
        objective=config.plan.objective.metric,
    )
    loss = config.plan.objective.as_loss(trained) if trained.status == "complete" else None
    now = None if loss is None else config.plan.objective.from_loss(loss)
    then = result.answer.winner.objectives[spec.seed]
    first = again.first or again.missing()
    verdict: Literal["identical", "within_interval", "different"] = "different"
    if first is None and now == then:
        verdict = "identical"
    elif now is not None and abs(now - then) <= _WITHIN * (result.noise or 0.0):
        verdict = "within_interval"
    changes = {**_provenance_changes(record), **setting.config.differences(config)}
    return Reproduction(name, verdict, len(recorded), then, now, first, changes)


class _Again:
    """Hears of the new training, and holds each point against the record."""

    def __init__(self, recorded: Mapping[tuple[int, str], float]) -> None:
        self.first: Difference | None = None
        self._recorded = recorded
        self._seen: set[tuple[int, str]] = set()

    def begin(self, model_info: Mapping[str, Any]) -> None:
        """Nothing to compare yet."""

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        for metric, value in metrics.items():
            self._seen.add((step, metric))
            then = self._recorded.get((step, metric))
            if then is not None and then != value and self.first is None:
                self.first = Difference(step, metric, then, value)

    def missing(self) -> Difference | None:
        """The first recorded point that did not come again."""
        gone = sorted(self._recorded.keys() - self._seen)
        return Difference(*gone[0], self._recorded[gone[0]], None) if gone else None


def _winner(result: StudyResult) -> tuple[TrialSpec, RunRecord]:
    trials = [t for t in result.trials_of(result.answer.winner) if t.status == "complete"]
    if not trials:
        raise RecordError(f"{result.name}: the winner's trainings are not on record")
    key = trials[0].spec.key
    for path in result.folder.journals():
        if _is_of(path, key):
            return trials[0].spec, read_run(path)
    raise RecordError(f"{result.name}: the journal of the winner's training is gone")


def _is_of(path: Path, key: str) -> bool:
    return read_start(path).tags.get("lrsearch.trial_key") == key


def _points(record: RunRecord) -> Iterator[tuple[tuple[int, str], float]]:
    for group in record.groups:
        for metric, values in group.metrics.items():
            yield from (((step, metric), value) for step, value in zip(group.steps, values, strict=True))


def _provenance_changes(record: RunRecord) -> dict[str, tuple[Any, Any]]:
    then, now = record.start.provenance, collect()
    return {
        name: (before, after)
        for part in _COMPARED
        for name, before, after in _pairs(part, then.get(part), now.get(part))
        if before != after
    }


def _pairs(name: str, then: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            yield f"{name}.{key}", then.get(key), now.get(key)
    else:
        yield name, then, now
