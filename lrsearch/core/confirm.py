"""The last stage: the finalists on fresh seeds, the same for each, until it is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lrsearch.core.observations import observe
from lrsearch.core.stage import Stage
from lrsearch.core.stages import Base, ScheduleCandidate
from lrsearch.core.stats import Candidate, Decision, decide
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import Configuration, TrialResult
from lrsearch.errors import StudyError
from lrsearch.schedules import schedule_name, schedule_names

_FRESH_SEEDS = 1000
"""Seeds of the confirm stage begin so far above the study's: no stage before has used them."""


@dataclass(frozen=True)
class Confirmed:
    """The decision between the finalists, in losses; `configurations` by the finalist's name."""

    decision: Decision
    candidates: tuple[Candidate, ...]
    configurations: Mapping[str, Configuration]
    margin: float
    baseline: TrialResult | None


def confirm(stage: Stage, base: Base, candidates: Sequence[ScheduleCandidate]) -> Confirmed:
    """Train the base schedule and the best others on fresh seeds, the same for all, until it is decided.

    Raises StudyError where every finalist diverges on them.
    """
    plan, rules = stage.plan, stage.plan.confirm
    seeds = [plan.seed + _FRESH_SEEDS + k for k in range(rules.max_seeds)]
    baseline = None
    if plan.baseline:
        (baseline,) = stage.run([1e-3], {"name": "constant"}, seeds[:1], optimizer="adam")
    room = max(2, int(stage.left // rules.seeds))
    entrants = [Configuration(base.lr, base.schedule)]
    entrants += [c.configuration for c in candidates[: min(rules.candidates, room) - 1]]
    finalists = {f"{schedule_name(entrant.schedule)} at {entrant.lr:.3g}": entrant for entrant in entrants}
    trials: dict[str, list[TrialResult]] = {name: [] for name in finalists}

    def train(names: Sequence[str], seed: int) -> None:
        for name in names:
            if all(trial.status == "complete" for trial in trials[name]):
                trials[name] += stage.run([finalists[name].lr], finalists[name].schedule, [seed])

    for k, seed in enumerate(seeds[: rules.seeds]):
        if k == 0 or stage.affords(len(finalists)):
            train(list(finalists), seed)
    confirmed = _judge(stage, base, finalists, trials, baseline)
    for seed in seeds[rules.seeds :]:
        decision = confirmed.decision
        active = [decision.winner.name, *decision.undecided]
        if decision.settled or not stage.affords(len(active)):
            break
        train(active, seed)
        confirmed = _judge(stage, base, finalists, trials, baseline)
    return confirmed


def _judge(
    stage: Stage,
    base: Base,
    finalists: Mapping[str, Configuration],
    trials: Mapping[str, Sequence[TrialResult]],
    baseline: TrialResult | None,
) -> Confirmed:
    plan = stage.plan
    candidates = [_candidate(stage, name, finalists[name], trials[name]) for name in finalists]
    alive = [candidate for candidate in candidates if not candidate.diverged]
    if not alive:
        raise StudyError(
            f"every finalist ({', '.join(finalists)}) diverged on a fresh seed: the edge moves with it; "
            "lower range_test.max_lr, or put a warmup into base_schedule"
        )
    margin = margin_of(plan, [trial for group in trials.values() for trial in group], base.trials)
    decision = decide(
        alive,
        margin,
        simplicity=schedule_names(),
        paired=plan.confirm.paired,
        level=plan.level,
        best_mean=plan.objective.best_mean,
    )
    return Confirmed(decision, tuple(candidates), finalists, margin, baseline)


def _candidate(
    stage: Stage, name: str, configuration: Configuration, trials: Sequence[TrialResult]
) -> Candidate:
    seen = observe(stage.plan, [trial for trial in trials if trial.status != "failed"])
    return Candidate(
        name=name,
        schedule=schedule_name(configuration.schedule),
        lr=configuration.lr,
        objectives={o.seed: o.objective for o in seen if o.objective is not None},
        diverged=any(o.diverged for o in seen) or not seen,
    )


def margin_of(plan: StudyPlan, trials: Sequence[TrialResult], before: Sequence[TrialResult] = ()) -> float:
    """`delta` of the way from the untrained model's loss to the best of these trials.

    Where nothing tells the untrained model's, the worst loss stands for it, also of the trials `before`.
    """
    initial = [loss for trial in trials if (loss := plan.objective.initial_loss(trial)) is not None]
    final = [o.objective for o in observe(plan, trials) if o.objective is not None]
    worst = max(o.objective for o in observe(plan, (*before, *trials)) if o.objective is not None)
    way = (sum(initial) / len(initial) if initial else worst) - min(final)
    return plan.delta * max(way, 1e-3 * max(abs(min(final)), 1e-12))
