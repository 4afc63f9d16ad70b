"""The stages one after the other, and the same once more from the record alone, where nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.conclude import Findings, conclude
from lrsearch.core.confirm import Confirmed, confirm, margin_of
from lrsearch.core.observations import response_under
from lrsearch.core.response import Observation
from lrsearch.core.stage import Account, Stage, readable
from lrsearch.core.stages import Base, coarse, decay, fine
from lrsearch.core.study_plan import STAGES, StageName, StudyPlan
from lrsearch.core.suggest import Bracket, Suggestion
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.errors import StudyError
from lrsearch.study.config import StudyConfig
from lrsearch.study.optuna_study import propose

SOUND = ("ok", "rules_disagree", "never_diverged")
"""Verdicts of a range test whose bracket is to be trusted."""


def bracket_of(suggestion: Suggestion | None) -> Bracket | None:
    """The bracket that a range test's verdict lets one rely on."""
    return suggestion.bracket if suggestion is not None and suggestion.verdict in SOUND else None


def answer_of(
    config: StudyConfig,
    stages: Sequence[StageResult],
    bracket: Bracket | None,
    base: Base,
    confirmed: Confirmed,
) -> Answer:
    """The answer of a study whose stages are all done."""
    return conclude(
        Findings(
            plan=config.plan,
            stages=stages,
            bracketed=bracket is not None,
            base=base,
            confirmed=confirmed,
            model_info=config.model_info,
            total_steps=config.total_steps,
            accepted=tuple(config.accepted),
        )
    )


def fold(
    begin: Callable[[StageName], Stage], end: Callable[[StageResult], None], bracket: Bracket | None
) -> tuple[Base, Confirmed]:
    """The four stages that train, each from what the one before found; each is said to begin and to end."""
    stage = begin("coarse")
    base = coarse(stage, bracket)
    noise = base.noise and base.noise.sd
    warmup, differ = base.needs_warmup, base.runs_differ
    end(stage.result(lr=base.lr, noise=noise, needs_warmup=warmup, runs_differ=differ))
    stage = begin("fine")
    base = fine(stage, base)
    end(stage.result(lr=base.lr, on_edge=base.on_edge))
    stage = begin("decay")
    followed = decay(stage, base)
    end(stage.result(order=[{"schedule": f.name, "lr": f.lr} for f in followed]))
    stage = begin("confirm")
    confirmed = confirm(stage, base, followed)
    end(stage.result(winner=confirmed.decision.winner.name, reason=confirmed.decision.reason))
    return base, confirmed


@dataclass(frozen=True)
class Replayed:
    """What the record says of a study: its stages, the last perhaps cut short and then without findings, the
    answer where there is one, and the problem where the trials leave nothing to search.
    """

    stages: tuple[StageResult, ...]
    answer: Answer | None
    problem: str | None


def replay(
    config: StudyConfig,
    swept: StageResult,
    suggestion: Suggestion | None,
    finished: Mapping[str, TrialResult],
) -> Replayed:
    """Folds the stages anew from the trials on record, by their keys, as far as they go.

    Trials that the fold does not come to, since one before them is lost, are put to their stages too.
    """
    bracket = bracket_of(suggestion)
    account = Account(config.plan, config.total_steps)
    account.spent = swept.cost
    executor = _RecordedExecutor(config.plan, finished)
    begun: list[Stage] = []
    stages = [swept]

    def begin(name: StageName) -> Stage:
        begun.append(Stage(name, account, executor))
        return begun[-1]

    answer, problem = None, None
    try:
        base, confirmed = fold(begin, stages.append, bracket)
        answer = answer_of(config, stages, bracket, base, confirmed)
    except _NotRecordedError:
        pass  # the study came as far as this
    except StudyError as error:
        problem = str(error)
    if begun and begun[-1].name != stages[-1].stage and begun[-1].trials:
        stages.append(begun[-1].result())
    return Replayed(tuple(_with_the_rest(stages, finished, account)), answer, problem)


def best_so_far(config: StudyConfig, stages: Sequence[StageResult]) -> Answer | None:
    """What the base schedule's trials say before anything is confirmed; None of fewer than two lrs."""
    plan = config.plan
    trials = [trial for stage in stages for trial in stage.trials]
    under = [t for t in trials if t.spec.schedule == plan.base_schedule and t.status == "complete"]
    if len({trial.spec.lr for trial in under}) < 2:
        return None
    response = response_under(plan, trials, plan.base_schedule, config.total_steps)
    if not response.groups:
        return None
    fit = response.fit()
    lr = readable(fit.lr)
    margin = margin_of(plan, under)
    return Answer(
        lr=lr,
        schedule=plan.base_schedule,
        base_lr=lr,
        objective=plan.objective.from_loss(float(fit.objective(lr))),
        metric=plan.objective.metric,
        reason="not confirmed yet",
        interval=fit.interval(plan.level),
        tolerance=fit.tolerance(margin),
        noise=response.noise.sd if response.noise else 0.0,
        margin=margin,
        finalists=(),
    )


class _NotRecordedError(Exception):
    """A training that the record does not hold."""


class _RecordedExecutor:
    """Gives what is on record, and trains nothing."""

    def __init__(self, plan: StudyPlan, finished: Mapping[str, TrialResult]) -> None:
        self._plan = plan
        self._finished = finished
        self.exact = not any(trial.spec.again for trial in finished.values())

    def run(self, spec: TrialSpec, number: int) -> TrialResult:  # noqa: ARG002
        if spec.key not in self._finished:
            raise _NotRecordedError
        return self._finished[spec.key]

    def propose(self, observations: Sequence[Observation], low: float, high: float) -> float:
        return propose(observations, low, high, self._plan.seed)


def _with_the_rest(
    stages: Sequence[StageResult], finished: Mapping[str, TrialResult], account: Account
) -> list[StageResult]:
    told = {trial.spec.key for stage in stages for trial in stage.trials}
    found = {stage.stage: stage for stage in stages}
    for key, trial in finished.items():
        if key not in told:
            name: StageName = trial.spec.stage  # type: ignore[assignment]
            stage = found.get(name) or StageResult(name, (), 0.0)
            cost = stage.cost + account.book(trial)
            found[name] = replace(stage, trials=(*stage.trials, trial), cost=cost)
    return [found[name] for name in STAGES if name in found]
