"""The stages that search: each a function from what the one before found to what the next one needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lrsearch.core.executor import Propose
from lrsearch.core.findings import Bracket
from lrsearch.core.observations import observe
from lrsearch.core.proposal import HIGHEST_LR, LOWEST_LR
from lrsearch.core.response import Observation, Response, Side
from lrsearch.core.stage import Stage, readable
from lrsearch.core.stats import Noise
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import Configuration, TrialResult
from lrsearch.errors import StudyError

_BLIND_LR, _BLIND_FACTOR = 1e-3, 10.0
"""Middle and ratio of the grid where the range test found no bracket."""
_LONGEST_WALK = 12
"""Lrs that a grid grows by at most."""
_LEVEL_WALK = 3
"""Lrs by which it grows where all gave the same loss: an optimizer may have a cap."""
_EARLY = 0.15
"""A divergence in this share of a training may be the start's fault: the first tenth and a window."""
_NEAR = math.log(1.05)
"""An lr that lies within 5% of one tried tells nothing new."""
_OCTAVE = 2.0


@dataclass(frozen=True)
class Base:
    """The best lr under the base schedule; `trials` are those that say so, `noise` that between seeds.

    `on_edge` names the side where the best is still the last lr tried; `runs_differ` is the difference
    between two equal trainings, None where they are the same bit for bit.
    """

    lr: float
    schedule: Mapping[str, Any]
    trials: tuple[TrialResult, ...]
    noise: Noise | None
    on_edge: Side | None = None
    needs_warmup: bool = False
    runs_differ: float | None = None


@dataclass(frozen=True)
class ScheduleCandidate:
    """A schedule at its best lr, the loss expected there, and the trials that say so."""

    configuration: Configuration
    loss: float
    trials: tuple[TrialResult, ...]


def coarse(stage: Stage, bracket: Bracket | None) -> Base:
    """A log grid below the edge, extended while its best lies at an end; then more seeds for the best.

    It goes on downwards while no lr beats the untrained model, and without a bracket to either side until
    both neighbours of the best are worse, in both cases at the cost of the decay stage. Raises StudyError
    where every lr diverged, or where the lr makes no difference at all.
    """
    plan, share = stage.plan, stage.plan.proxy
    base, seed = plan.base_schedule, plan.seed
    lrs = _grid(stage, bracket)
    trials = stage.run(lrs, base, [seed], share=share)
    astray = bracket is None
    for added in range(_LONGEST_WALK):
        response = _response(stage, trials)
        lost = not beats_untrained(plan, trials)
        level = response.has_equal_means  # an optimizer whose lr is capped: lower ones differ
        side = "low" if lost or level else response.needs_extension()
        astray = astray or (lost and not level)
        longest = _LONGEST_WALK if astray else max(plan.coarse.extensions, _LEVEL_WALK * level)
        if side is None or added >= longest:
            break
        if not stage.affords(share * (1 + plan.coarse.replicates), spare_decay=not (astray or level)):
            break
        beyond = response.tried[0] / _ratio(lrs) if side == "low" else response.tried[-1] * _ratio(lrs)
        if not LOWEST_LR <= beyond <= HIGHEST_LR:
            break
        trials += stage.run([readable(beyond)], base, [seed], share=share)
    response = _response(stage, trials)
    if not response.groups:
        low, high = response.tried[0], response.tried[-1]
        raise StudyError(
            f"every lr from {low:.3g} to {high:.3g} diverged: look at the loss, the data and the initial "
            "weights, or lower range_test.min_lr"
        )
    if response.has_equal_means:
        raise StudyError(
            f"every lr from {response.tried[0]:.3g} to {response.tried[-1]:.3g} gave the same "
            f"{plan.objective.metric}, {plan.objective.from_loss(float(response.means[0])):.6g}: "
            "does the optimizer train the model that is evaluated, and is it made with the trial's lr?"
        )
    on_edge = response.needs_extension()
    for k in range(plan.coarse.replicates):
        if response.groups and stage.affords(share):
            trials += stage.run([response.best_lr], base, [seed + 1 + k], share=share)
            response = _response(stage, trials)
    if not response.groups:
        raise StudyError(
            f"the best lr, {trials[-1].spec.lr:.3g}, diverged on another seed, and so did all others"
        )
    return Base(
        lr=readable(response.fit().lr),
        schedule=base,
        trials=tuple(trials),
        noise=response.noise,
        on_edge=on_edge,
        needs_warmup=_survives_with_warmup(stage, trials, bracket),
        runs_differ=_difference_of_equal_runs(stage, trials, response.best_lr),
    )


def fine(stage: Stage, base: Base, propose: Propose) -> Base:
    """The vertex of the response, then a sampler's proposals, until the expected gain is below the noise.

    Where the trials so far were short ones, the lr must also beat both neighbours an octave away at the full
    length, and moves on to a neighbour that is better.
    """
    plan, share = stage.plan, stage.plan.proxy
    trials = list(base.trials)
    response = _response(stage, trials)
    done = 0
    proposals = [lr for lr in map(readable, response.vertex().lrs) if _is_new(lr, response)]
    while done < plan.fine.trials and stage.affords(share):
        if not proposals:
            if not _worth_more(response):
                break
            low, high = _neighbourhood(response)
            lr = readable(propose(observe(plan, trials), low, high))
            if not _is_new(lr, response):
                break
            proposals = [lr]
        trials += stage.run([proposals.pop(0)], base.schedule, [plan.seed], share=share)
        response = _response(stage, trials)
        done += 1
    found = replace(
        base, lr=readable(response.fit().lr), trials=tuple(trials), on_edge=response.needs_extension()
    )
    return found if share == 1.0 else _at_full_length(stage, found)


def decay(stage: Stage, base: Base) -> list[ScheduleCandidate]:
    """Every family at an lr above the base lr; the best ones are followed by octaves until interior.

    Returns the schedules by the loss expected of them, best first; the base schedule is not among them.
    """
    plan = stage.plan
    families: list[Mapping[str, Any]] = list(plan.decayed)
    if base.needs_warmup:
        families = [_warmed(schedule) for schedule in (base.schedule, *families)]
    trials: list[list[TrialResult]] = []
    for family in families:
        if not _may_go_on(stage):
            break
        trials.append(stage.run([_start(stage, base, family)], family, [plan.seed]))
    order = sorted(range(len(trials)), key=lambda k: _best_loss(stage, trials[k]))
    for rank, k in enumerate(order[: plan.decay.extended]):
        if rank > 0:  # it starts where the best ended
            best = _best_lr(stage, trials[order[0]])
            if best is not None and _may_go_on(stage) and all(t.spec.lr != best for t in trials[k]):
                trials[k] += stage.run([best], families[k], [plan.seed])
        _follow(stage, families[k], trials[k])
    candidates = []
    for family, group in zip(families, trials, strict=False):
        expected = plan.expected_lr(family, base.lr)
        response = Response(seen, base.noise, expected) if (seen := observe(plan, group)) else None
        if response is not None and response.groups:
            fit = response.fit()
            lr = readable(fit.lr)
            expected_loss = min(fit.objective(lr), response.means.min())
            candidates.append(
                ScheduleCandidate(Configuration(lr, family), float(expected_loss), tuple(group))
            )
    return sorted(candidates, key=lambda candidate: candidate.loss)


def _start(stage: Stage, base: Base, family: Mapping[str, Any]) -> float:
    """Where the family's best is expected, but not up to where the base lr led nowhere: below a cliff, the
    highest lr that trained.
    """
    response = _response(stage, base.trials)
    expected = stage.plan.expected_lr(family, base.lr)
    return readable(expected if response.cliff is None else min(expected, float(response.lrs[-1])))


def _grid(stage: Stage, bracket: Bracket | None) -> list[float]:
    plan = stage.plan
    if bracket is None:
        middle = (plan.coarse.points - 1) // 2
        return [readable(_BLIND_LR * _BLIND_FACTOR ** (k - middle)) for k in range(plan.coarse.points)]
    edge = bracket.high or _OCTAVE * plan.range_test.max_lr
    top, factor = edge / _OCTAVE, plan.coarse.factor
    return sorted(readable(top / factor**k) for k in range(plan.coarse.points))


def beats_untrained(plan: StudyPlan, trials: Iterable[TrialResult]) -> bool:
    """Whether any training is better than none; True of one that tells nothing of the untrained model."""
    for trial in trials:
        loss, untrained = plan.objective.as_loss(trial), plan.objective.untrained_loss(trial)
        if trial.status == "complete" and loss is not None and (untrained is None or loss < untrained):
            return True
    return False


def _ratio(lrs: Sequence[float]) -> float:
    return lrs[1] / lrs[0]


def _response(stage: Stage, trials: Sequence[TrialResult]) -> Response:
    return Response(observe(stage.plan, trials))


def _is_new(lr: float, response: Response) -> bool:
    return all(abs(math.log(lr / tried)) > _NEAR for tried in response.tried)


def _worth_more(response: Response) -> bool:
    noise = response.noise
    return noise is not None and response.fit().expected_gain > noise.sd


def _neighbourhood(response: Response) -> tuple[float, float]:
    """From the lr below the best to the one above it."""
    at = response.tried.index(response.best_lr)
    return response.tried[max(at - 1, 0)], response.tried[min(at + 1, len(response.tried) - 1)]


def _survives_with_warmup(stage: Stage, trials: Sequence[TrialResult], bracket: Bracket | None) -> bool:
    """Whether a training that diverged at its very start, below the edge, does not once it is warmed up."""
    if bracket is None or bracket.high is None:
        return False
    early = [
        trial
        for trial in trials
        if trial.status == "diverged"
        and trial.spec.lr < bracket.high
        and trial.steps_done <= _EARLY * trial.spec.steps
    ]
    if not early or not stage.affords(stage.plan.proxy):
        return False
    lr = min(trial.spec.lr for trial in early)
    (warmed,) = stage.run([lr], _warmed(stage.plan.base_schedule), [stage.plan.seed], share=stage.plan.proxy)
    return warmed.status == "complete"


def _difference_of_equal_runs(stage: Stage, trials: Sequence[TrialResult], lr: float) -> float | None:
    """What a second run of the best training differs by, where the device does not repeat itself."""
    if stage.exact or not stage.affords(stage.plan.proxy):
        return None
    once = [trial for trial in trials if trial.spec.lr == lr and trial.spec.seed == stage.plan.seed]
    again = stage.run([lr], stage.plan.base_schedule, [stage.plan.seed], share=stage.plan.proxy, again=1)
    losses = [stage.plan.objective.as_loss(trial) for trial in (*once[:1], *again)]
    return abs(losses[0] - losses[1]) if None not in losses else None  # type: ignore[operator]


def _warmed(schedule: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "warmup", "inner": dict(schedule), "fraction": 0.05}


def _at_full_length(stage: Stage, base: Base) -> Base:
    """Walk by octaves at the full length until the lr beats both neighbours, or no more is affordable."""
    plan = stage.plan
    lrs = [base.lr / _OCTAVE, base.lr, base.lr * _OCTAVE]
    trials = stage.run(map(readable, lrs), base.schedule, [plan.seed])
    while stage.affords(1) and (side := _response(stage, trials).needs_extension()):
        tried = _response(stage, trials).tried
        lr = tried[0] / _OCTAVE if side == "low" else tried[-1] * _OCTAVE
        trials += stage.run([readable(lr)], base.schedule, [plan.seed])
    response = Response(observe(plan, trials), base.noise)
    if not response.groups:
        raise StudyError(f"at the full length every lr around {base.lr:.3g} diverged")
    lr, on_edge = readable(response.fit().lr), response.needs_extension()
    return replace(base, lr=lr, trials=tuple(trials), on_edge=on_edge)


def _may_go_on(stage: Stage) -> bool:
    return len(stage.trials) < stage.plan.decay.trials and stage.affords(1)


def _follow(stage: Stage, family: Mapping[str, Any], trials: list[TrialResult]) -> None:
    """Octave by octave, up first, until the family's best lr is interior."""
    while _may_go_on(stage):
        seen = observe(stage.plan, trials)
        if not seen:
            return
        response = Response(seen)
        side = response.needs_extension()
        if side is None:
            return
        if len(response.tried) == 1 and response.groups:
            side = "high"
        lr = response.tried[0] / _OCTAVE if side == "low" else response.tried[-1] * _OCTAVE
        trials += stage.run([readable(lr)], family, [stage.plan.seed])


def _losses(stage: Stage, trials: Sequence[TrialResult]) -> list[Observation]:
    return [o for o in observe(stage.plan, trials) if not o.diverged]


def _best_loss(stage: Stage, trials: Sequence[TrialResult]) -> float:
    return min((o.objective for o in _losses(stage, trials) if o.objective is not None), default=math.inf)


def _best_lr(stage: Stage, trials: Sequence[TrialResult]) -> float | None:
    seen = _losses(stage, trials)
    return Response(seen).best_lr if seen else None
