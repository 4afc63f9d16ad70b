"""Several studies side by side: their answers, what they knew at equal cost, which differences are real."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.objective import Objective
from lrsearch.core.observations import response_under
from lrsearch.core.response import Interval, Response
from lrsearch.core.stats import compare
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import Direction, TrialResult, Use
from lrsearch.errors import InputError

Verdict = Literal["best", "worse", "not_told_apart", "one_seed"]

_ROUNDING = 1e-9
_ABOUT_EQUAL = 0.02
"""Trainings whose lengths differ by a smaller share count as equally long."""


@dataclass(frozen=True)
class ComparedStudy:
    """A finished study as a comparison reads it.

    `params` say what was trained (model, optimizer, batch_size …), `data` the data sets by context, each with
    its fingerprint; `steps_per_epoch` is None where it is not known.
    """

    name: str
    task: str
    answer: Answer
    stages: tuple[StageResult, ...]
    plan: StudyPlan
    total_steps: int
    steps_per_epoch: int | None
    params: Mapping[str, Any]
    data: Mapping[str, Mapping[str, Any]]

    @property
    def trials(self) -> tuple[TrialResult, ...]:
        """Every training, in order; one that two stages asked for comes once."""
        return tuple({trial.spec.key: trial for stage in self.stages for trial in stage.trials}.values())

    @property
    def cost(self) -> float:
        """What the study cost, in run-equivalents."""
        return sum(stage.cost for stage in self.stages)

    def response(self, schedule: Mapping[str, Any]) -> Response:
        """The objective (as a loss) against lr under a schedule; InputError where nothing was trained so."""
        noise, base_lr = self.answer.spread, self.answer.base_lr
        return response_under(self.plan, self.trials, schedule, self.total_steps, noise, base_lr)

    @property
    def epochs(self) -> float | None:
        """The length of a full training; None where the length of an epoch is not known."""
        return self.total_steps / self.steps_per_epoch if self.steps_per_epoch else None

    def best_within(self, cost: float) -> float | None:
        """The best objective known once the study had spent `cost` run-equivalents, in its own sign.

        It is the lowest mean over the seeds that a configuration had by then, of the trainings of full
        length; the baseline is left out, and what diverged or failed on any seed. None where there was none.
        """
        groups: dict[str, list[float]] = {}
        lost = set()
        for spent, trial in self._spending():
            if spent > cost + _ROUNDING:
                break
            spec = trial.spec
            if spec.optimizer is not None or spec.again or spec.steps != self.total_steps:
                continue
            configuration = f"{spec.lr!r} {sorted(spec.schedule.items())!r}"
            loss = self.plan.objective.as_loss(trial)
            if trial.status != "complete":
                lost.add(configuration)
            elif loss is not None:
                groups.setdefault(configuration, []).append(loss)
        means = [float(np.mean(losses)) for name, losses in groups.items() if name not in lost]
        return self.plan.objective.from_loss(min(means)) if means else None

    def _spending(self) -> Iterator[tuple[float, TrialResult]]:
        """Every training in order, with what the study had spent when it was done."""
        spent = sum(stage.cost for stage in self.stages if not stage.trials)  # the sweeps, which come first
        for trial in self.trials:
            spent += trial.steps_done / self.total_steps
            yield spent, trial


@dataclass(frozen=True)
class Difference:
    """How much worse a study is than the best, in the objective's unit (positive is worse).

    `low` and `high` are None where one of the two has a single seed, which bounds nothing.
    """

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ComparisonRow:
    """A study's answer, and what is to be made of its difference from the best.

    `objective` is the mean over the `seeds` fresh ones, `noise` their standard deviation as the study
    measured it, `cost` in run-equivalents, `at_equal_cost` what it knew for the cheapest study's cost.
    `optimizer`, `batch_size` and `model` are None where they are not known. `behind` is None for the best.
    """

    name: str
    task: str
    optimizer: str | None
    batch_size: int | None
    model: str | None
    schedule: Mapping[str, Any]
    lr: float
    interval: Interval
    objective: float
    seeds: int
    noise: float | None
    cost: float
    at_equal_cost: float | None
    behind: Difference | None
    verdict: Verdict
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Studies of one objective, a row each, in the order in which they were given.

    `level` is the confidence with which all differences hold together. `equal_cost` is the cheapest study's
    cost in run-equivalents. `differing` holds the settings that are not the same in all studies, a value a
    study, None where a study has no such setting. `cautions` say what makes the comparison unfair.
    """

    studies: tuple[ComparedStudy, ...]
    rows: tuple[ComparisonRow, ...]
    metric: str
    direction: Direction
    use: Use
    level: float
    equal_cost: float
    differing: Mapping[str, tuple[Any, ...]]
    cautions: tuple[str, ...]

    @property
    def best(self) -> ComparisonRow:
        """The study of the best mean objective on fresh seeds."""
        return next(row for row in self.rows if row.verdict == "best")

    @property
    def batch_size_differs(self) -> bool:
        """The batch size is what differs: known of every study, while model, optimizer and task are equal."""
        sizes = {row.batch_size for row in self.rows}
        others = {(row.task, row.optimizer, row.model) for row in self.rows}
        return None not in sizes and len(sizes) > 1 and len(others) == 1


def compare_studies(studies: Sequence[ComparedStudy], level: float = 0.9) -> Comparison:
    """Holds studies against each other.

    Each is compared with the best by Welch's t on the objectives of their winners by fresh seed. As the best
    was chosen by looking, every pair of the n studies counts: an interval is made at ``1 - (1 - level) / (n
    (n - 1) / 2)`` (Bonferroni), so that all of them hold together with `level`. Raises InputError for fewer
    than two studies and for different objectives, naming both.
    """
    if len(studies) < 2:
        names = [study.name for study in studies]
        raise InputError("names", names, "there is nothing to compare", "name at least two studies")
    objective = _one_objective(studies)
    losses = [_fresh_losses(study) for study in studies]
    best = int(np.argmin([np.mean(group) for group in losses]))
    equal_cost = min(study.cost for study in studies)
    pairs = len(studies) * (len(studies) - 1) / 2
    each = 1 - (1 - level) / pairs
    rows = []
    for k, study in enumerate(studies):
        behind = None if k == best else _behind(losses[k], losses[best], each)
        rows.append(_row(study, study.best_within(equal_cost), behind))
    return Comparison(
        studies=tuple(studies),
        rows=tuple(rows),
        metric=objective.metric,
        direction=objective.towards,
        use=objective.use,
        level=level,
        equal_cost=equal_cost,
        differing=_differing(studies),
        cautions=tuple(_cautions(studies)),
    )


def _one_objective(studies: Sequence[ComparedStudy]) -> Objective:
    """The objective of all of them."""
    first = studies[0]
    for other in studies[1:]:
        if _objective_in_words(other.plan.objective) != _objective_in_words(first.plan.objective):
            raise InputError(
                "names",
                [first.name, other.name],
                f"{first.name} was to {_objective_in_words(first.plan.objective)}, "
                f"{other.name} to {_objective_in_words(other.plan.objective)}",
                "compare studies of one objective",
            )
    return first.plan.objective


def _objective_in_words(objective: Objective) -> str:
    return f"{objective.towards} the {objective.use} {objective.metric}"


def _fresh_losses(study: ComparedStudy) -> list[float]:
    """The winner's objective on every fresh seed, lower is better."""
    sign = 1.0 if study.plan.objective.towards == "minimize" else -1.0
    return [sign * value for value in study.answer.winner.objectives.values()]


def _behind(losses: Sequence[float], best: Sequence[float], level: float) -> Difference:
    seen = compare(losses, best, paired=False, level=level)
    bounded = math.isfinite(seen.low)
    return Difference(seen.difference, seen.low if bounded else None, seen.high if bounded else None)


def _verdict(behind: Difference | None) -> Verdict:
    if behind is None:
        return "best"
    if behind.low is None:
        return "one_seed"
    return "worse" if behind.low > 0 else "not_told_apart"


def _row(study: ComparedStudy, at_equal_cost: float | None, behind: Difference | None) -> ComparisonRow:
    answer, params = study.answer, study.params
    fresh = list(answer.winner.objectives.values())
    return ComparisonRow(
        name=study.name,
        task=study.task,
        optimizer=params.get("optimizer"),
        batch_size=params.get("batch_size"),
        model=params.get("model"),
        schedule=answer.schedule,
        lr=answer.lr,
        interval=answer.interval,
        objective=float(np.mean(fresh)),
        seeds=len(fresh),
        noise=answer.noise,
        cost=study.cost,
        at_equal_cost=at_equal_cost,
        behind=behind,
        verdict=_verdict(behind),
        warnings=tuple(answer.warnings),
    )


def _differing(studies: Sequence[ComparedStudy]) -> dict[str, tuple[Any, ...]]:
    """The settings that are not the same in all studies."""
    settings = [_settings(study) for study in studies]
    names = dict.fromkeys(name for one in settings for name in one)
    values = {name: tuple(one.get(name) for one in settings) for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def _settings(study: ComparedStudy) -> dict[str, Any]:
    """What was trained, on what, and the plan, each under one flat name."""
    data = {f"{context} data": facts.get("fingerprint") for context, facts in study.data.items()}
    length = {"full training, updates": study.total_steps}
    plan = study.plan.to_dict()
    del plan["objective"]  # the same in all, however it was said
    return {
        "task": study.task,
        **study.params,
        **data,
        **length,
        **dict(leaves({"plan": plan}, whole=("base_schedule",))),
    }


def leaves(values: Mapping[str, Any], path: str = "", whole: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every value within tables under its dotted path; those named in `whole` are not gone into."""
    for name, value in values.items():
        place = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping) and name not in whole:
            yield from leaves(value, place, whole)
        else:
            yield place, value


def _cautions(studies: Sequence[ComparedStudy]) -> Iterator[str]:
    validated = {study.data["val"].get("fingerprint") for study in studies if "val" in study.data}
    if len(validated) > 1:
        yield "the validation data are not the same, so that their objectives measure different things"
    epochs = [study.epochs for study in studies if study.epochs is not None]
    lengths = epochs if len(epochs) == len(studies) else [float(study.total_steps) for study in studies]
    if max(lengths) > (1 + _ABOUT_EQUAL) * min(lengths):
        unit = "epochs" if lengths is epochs else "updates"
        yield (
            f"a full training is {min(lengths):.4g} to {max(lengths):.4g} {unit} long, so that a "
            "run-equivalent is not the same in all studies"
        )
