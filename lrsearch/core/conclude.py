"""From what the stages found to the answer: how sure it is, what it gains, and what to beware of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrsearch.core.answer import Answer, Finalist, StageResult, WarningName
from lrsearch.core.confirm import Confirmed
from lrsearch.core.objective import direction_of
from lrsearch.core.observations import observe, response_under
from lrsearch.core.response import Response
from lrsearch.core.stages import Base
from lrsearch.core.stats import Candidate, Noise, noise
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import TrialResult
from lrsearch.schedules import schedule_name

_FAR = 2.0
"""Best lrs of two metrics further apart than this disagree."""
_AT_THE_END = 1.05
"""An lr within this factor of the last one tried lies at the end: the fit may choose one just inside."""
_BEYOND = {"low": "below", "high": "above"}
_UNSTABLE = 0.25
"""The share of the way from the untrained model to the best that no seed should lose."""
_FAR_APART = 0.25
"""Shares of the larger loss by which the first losses of equal seeds do not differ."""
_BEYOND_NOISE = 2.0
"""Standard deviations between seeds that are no noise any more."""


@dataclass(frozen=True)
class Evidence:
    """All that a study found. `model_info` says what was trained; it is empty for a loop of one's own.

    `accepted` names what had changed when the study was resumed all the same.
    """

    plan: StudyPlan
    stages: Sequence[StageResult]
    bracketed: bool
    base: Base
    confirmed: Confirmed
    model_info: Mapping[str, Any]
    total_steps: int
    accepted: Sequence[str] = ()

    @property
    def trials(self) -> list[TrialResult]:
        """Every trial of the study, in order."""
        return [trial for stage in self.stages for trial in stage.trials]


def conclude(found: Evidence) -> Answer:
    """The answer of a study."""
    plan, confirmed = found.plan, found.confirmed
    objective = plan.objective
    winner = confirmed.decision.winner
    schedule = confirmed.configurations[winner.name].schedule
    spread = _noise(confirmed.candidates) or found.base.noise
    response = response_under(
        plan, found.trials, schedule, found.total_steps, found.base.noise, found.base.lr
    )
    fit = response.fit()
    return Answer(
        lr=winner.lr,
        schedule=schedule,
        base_lr=found.base.lr,
        objective=objective.from_loss(winner.mean),
        metric=objective.metric,
        reason=confirmed.decision.reason,
        interval=fit.interval(plan.level),
        tolerance=fit.tolerance(confirmed.margin),
        noise=spread.sd if spread else None,
        margin=confirmed.margin,
        finalists=finalists_of(plan, confirmed),
        gain_over_baseline=_gain_over_baseline(found, winner),
        warnings=_warnings(found, winner, spread),
    )


def finalists_of(plan: StudyPlan, confirmed: Confirmed) -> tuple[Finalist, ...]:
    """The finalists in the objective's own sign, each with what the decision found of it."""
    objective, decision = plan.objective, confirmed.decision
    return tuple(
        Finalist(
            name=candidate.name,
            lr=candidate.lr,
            schedule=confirmed.configurations[candidate.name].schedule,
            objectives={seed: objective.from_loss(loss) for seed, loss in candidate.objectives.items()},
            diverged=candidate.diverged,
            gain=decision.gains.get(candidate.name),
        )
        for candidate in confirmed.candidates
    )


def _noise(candidates: Sequence[Candidate]) -> Noise | None:
    return noise([list(c.objectives.values()) for c in candidates if not c.diverged])


def _gain_over_baseline(found: Evidence, winner: Candidate) -> float | None:
    baseline = found.confirmed.baseline
    if baseline is None or baseline.status != "complete":
        return None
    loss = found.plan.objective.as_loss(baseline)
    own = winner.objectives.get(baseline.spec.seed)
    return None if loss is None or own is None else loss - own


def _warnings(found: Evidence, winner: Candidate, spread: Noise | None) -> dict[WarningName, str]:
    noise = spread.sd if spread else 0.0
    said: dict[WarningName, str | None] = {
        "no_bracket": None
        if found.bracketed
        else "the range test found no sound bracket, so that the grid was blind: look at its plot",
        "edge": _on_edge(found, winner),
        "needs_warmup": (
            "an lr below the edge diverged at the start and did not with 5% of warmup: warm up"
            if found.base.needs_warmup
            else None
        ),
        "objectives_disagree": _disagreement(found),
        "overfitting": _overfitting(found, winner, noise),
        "lr_and_weight_decay_tuned_together": _weight_decay(found),
        "untrained": _untrained(found, winner),
        "unstable": _unstable(found, winner),
        "baseline_better": _baseline_better(found, winner, noise),
        "bad_data": _bad_data(found),
        "trials_failed": _failures(found),
        "changes_accepted": _accepted(found),
        "own_loop": _own_loop(found),
        "runs_differ": None
        if found.base.runs_differ is None
        else f"equal trainings differ by {found.base.runs_differ:.2g}: torch.use_deterministic_algorithms()",
    }
    return {name: text for name, text in said.items() if text is not None}


def _on_edge(found: Evidence, winner: Candidate) -> str | None:
    """Whether the answer lies where all that was tried ends, under whatever schedule; diverged lrs are tried
    too. That a schedule was tried at few lrs is said by its interval, whose ends are open.
    """
    tried = [trial.spec.lr for trial in found.trials if trial.spec.optimizer is None]
    lowest, highest = min(tried) * _AT_THE_END, max(tried) / _AT_THE_END
    if not lowest < winner.lr < highest:
        word = "lowest" if winner.lr <= lowest else "highest"
        return f"the lr is the {word} that was tried: raise the budget to go on"
    if winner.schedule == schedule_name(found.base.schedule) and found.base.on_edge is not None:
        return (
            f"the best lr under {winner.schedule} may lie {_BEYOND[found.base.on_edge]} those that were tried"
        )
    return None


def _disagreement(found: Evidence) -> str | None:
    """Other validation metrics that prefer lrs far from the objective's: the two intervals share none.

    Metrics of which it is not known whether lower or higher is better prefer nothing.
    """
    plan, base = found.plan, found.base
    own = Response(observe(plan, base.trials), base.noise).fit()
    best, within = own.lr, own.interval(plan.level)
    names = sorted({name for t in base.trials for name in t.metrics if name.startswith("val/")})
    far = []
    for name in names:
        direction = direction_of(name)
        if name == plan.objective.metric or direction is None:
            continue
        objective = plan.objective.model_copy(update={"metric": name, "direction": direction})
        other = plan.model_copy(update={"objective": objective})
        response = Response(observe(other, base.trials))
        if not response.groups or response.noise is None:
            continue
        fit = response.fit()
        ratio = max(fit.lr / best, best / fit.lr)
        interval = fit.interval(plan.level)
        if ratio > _FAR and (interval.high < within.low or within.high < interval.low):
            far.append(f"{name} prefers {fit.lr:.3g}")
    if not far:
        return None
    return f"{plan.objective.metric} prefers lr {best:.3g}, {' and '.join(far)}: choose what matters"


def _overfitting(found: Evidence, winner: Candidate, noise: float) -> str | None:
    plan = found.plan
    best = plan.objective.model_copy(update={"use": "best"})
    final = plan.objective.model_copy(update={"use": "final"})
    chosen = found.confirmed.configurations[winner.name]
    trials = [t for t in found.stages[-1].trials if t.status == "complete" and t.spec.configuration == chosen]
    gaps = [(final.as_loss(t) or 0.0) - (best.as_loss(t) or 0.0) for t in trials]
    gap = sum(gaps) / len(gaps) if gaps else 0.0
    if gap <= max(_BEYOND_NOISE * noise, found.confirmed.margin):
        return None
    return f"the final {plan.objective.metric} is {gap:.3g} worse than the best epoch's: train for less"


def _weight_decay(found: Evidence) -> str | None:
    """Decoupled weight decay shrinks the weights by exp(-lr * wd * steps): past 1 it is a second setting."""
    decay = found.model_info.get("weight_decay", 0.0)
    if not found.model_info.get("decoupled_weight_decay") or not decay:
        return None
    lrs = [t.spec.lr for t in found.base.trials]
    low, high = (lr * decay * found.total_steps for lr in (min(lrs), max(lrs)))
    if not low < 1 < high:
        return None
    return (
        f"lr * weight decay * steps goes from {low:.2g} to {high:.2g} over the grid: the lr was chosen for "
        f"this weight decay ({decay:g}) and this length"
    )


def _untrained(found: Evidence, winner: Candidate) -> str | None:
    """Whether training leads nowhere: the winner is no better than the model before the first update."""
    objective = found.plan.objective
    known = [u for t in _trials_of(found, winner) if (u := objective.untrained_loss(t)) is not None]
    if not known or winner.mean < sum(known) / len(known):
        return None
    before, after = (objective.from_loss(loss) for loss in (sum(known) / len(known), winner.mean))
    return (
        f"{objective.metric} is {after:.4g} after the training and {before:.4g} before: nothing was learned"
    )


def _unstable(found: Evidence, winner: Candidate) -> str | None:
    """Whether one seed loses much of what another one gains: of the winner, or of the best base lr."""
    objective = found.plan.objective
    way = found.confirmed.margin / found.plan.delta
    for trials in (_trials_of(found, winner), _replicates(found)):
        losses = {o.seed: o.objective for o in observe(found.plan, trials) if o.objective is not None}
        best = min(losses, key=lambda seed: losses[seed])
        worst = max(losses, key=lambda seed: losses[seed])
        if losses[worst] - losses[best] > _UNSTABLE * way:
            low, high = (objective.from_loss(losses[seed]) for seed in (worst, best))
            return (
                f"{objective.metric} at lr {trials[0].spec.lr:.3g} is {low:.4g} with seed {worst} and "
                f"{high:.4g} with seed {best}: the same training may go wrong"
            )
    return None


def _replicates(found: Evidence) -> list[TrialResult]:
    """The trainings of the base lr that had the most seeds."""
    complete = [t for t in found.base.trials if t.status == "complete" and not t.spec.again]
    lrs = [t.spec.lr for t in complete]
    most = max(lrs, key=lrs.count)
    return [t for t in complete if t.spec.lr == most]


def _baseline_better(found: Evidence, winner: Candidate, noise: float) -> str | None:
    gain, baseline = _gain_over_baseline(found, winner), found.confirmed.baseline
    if gain is None or baseline is None or -gain <= max(found.confirmed.margin, _BEYOND_NOISE * noise):
        return None
    objective = found.plan.objective
    own = objective.from_loss(winner.objectives[baseline.spec.seed])
    return (
        f"Adam at lr 1e-3 is {-gain:.3g} better than the winner, whose {objective.metric} is {own:.4g} on "
        "the same seed"
    )


def _bad_data(found: Evidence) -> str | None:
    said = [trial.bad_data for trial in found.trials if trial.bad_data]
    return f"{max(said, key=said.count)} ({len(said)} of {len(found.trials)} trainings)" if said else None


def _trials_of(found: Evidence, candidate: Candidate) -> list[TrialResult]:
    """Every full training of a configuration that was completed, of whatever stage."""
    chosen = found.confirmed.configurations[candidate.name]
    return [
        trial
        for trial in found.trials
        if trial.status == "complete"
        and trial.spec.configuration == chosen
        and trial.spec.steps == found.total_steps
    ]


def _failures(found: Evidence) -> str | None:
    failed = [t for t in found.trials if t.status == "failed"]
    if not failed:
        return None
    causes = ", ".join(sorted({t.cause or "unknown" for t in failed}))
    return f"{len(failed)} of {len(found.trials)} trials raised ({causes}); their runs hold the traceback"


def _own_loop(found: Evidence) -> str | None:
    """What a loop of one's own left out, and whether its trainings depend on their seed, and on it alone."""
    if found.model_info:
        return None
    said = sorted({text for t in found.trials for text in t.warnings})
    said += filter(None, (_ignored_seed(found.trials), _beginnings(found.trials)))
    return f"the training function: {'; '.join(said)}" if said else None


def _ignored_seed(trials: Sequence[TrialResult]) -> str | None:
    """Whether trainings of one configuration with two seeds were the same to the last bit."""
    first: dict[str, TrialResult] = {}
    for trial in trials:
        if trial.status != "complete" or trial.spec.again or trial.spec.configuration is None:
            continue
        other = first.setdefault(f"{trial.spec.configuration.key} {trial.spec.steps}", trial)
        if other.spec.seed != trial.spec.seed and other.metrics == trial.metrics:
            return (
                f"seeds {other.spec.seed} and {trial.spec.seed} gave the same numbers at lr "
                f"{trial.spec.lr:.3g}: does it seed itself? Use trial.seed, or no seed at all"
            )
    return None


def _beginnings(trials: Sequence[TrialResult]) -> str | None:
    """Whether most trainings of a seed begin far from where its first one did, before the first update."""
    losses: dict[int, list[float]] = {}
    for trial in trials:
        reported = trial.metrics.get("train/loss")
        if reported is not None and reported.count >= trial.steps_done:  # the first is that of step 1
            losses.setdefault(trial.spec.seed, []).append(reported.first)
    for seed, (first, *others) in losses.items():
        far = [loss for loss in others if abs(loss - first) > _FAR_APART * max(abs(loss), abs(first))]
        if 2 * len(far) > len(others):
            return (
                f"trainings of seed {seed} began at losses from {min(first, *far):.3g} to "
                f"{max(first, *far):.3g}: make the model anew in the function, and draw from generators that "
                "trial.seed seeds"
            )
    return None


def _accepted(found: Evidence) -> str | None:
    if not found.accepted:
        return None
    return (
        f"{', '.join(found.accepted)} changed while the study was on: its first trials were of the old kind"
    )
