"""Studies made by hand, whose response is known: what the tables and the plots are to show of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lrsearch.core.answer import Answer, Finalist, StageResult
from lrsearch.core.curve import RangeTestCurve
from lrsearch.core.findings import (
    Bracket,
    CoarseFindings,
    ConfirmFindings,
    DecayFindings,
    FineFindings,
    RankedSchedule,
    SweepFindings,
)
from lrsearch.core.observations import observe
from lrsearch.core.presets import load_plan
from lrsearch.core.response import Response
from lrsearch.core.stats import Candidate, Gain, gain_over
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.suggest import suggest
from lrsearch.core.trial import MetricSummary, TrialResult, TrialSpec
from lrsearch.report.study_page_data import Commands, Origin, ReportData
from lrsearch.schedules import BUILT_IN
from lrsearch.schedules.sweep import sweep_lrs

STEPS = 200
BEST = {"constant": (0.05, 0.36), "linear": (0.1, 0.33), "cosine": (0.1, 0.335)}
"""The best lr of each schedule, and the loss there."""
UNTRAINED = 2.3
MARGIN = 0.00985
FACTS: dict[str, Any] = {
    "versions": {"python": "3.12.1", "torch": "2.13.0", "optuna": None},
    "platform": "Linux",
    "cpu": {"model": "Abacus 9", "count": 3},
    "git": {"commit": "0123abcd", "dirty": True},
    "command": "lrsearch search beans --name made",
    "user": "ada",
    "host": "engine",
    "environment": {"OMP_NUM_THREADS": "1"},
}
"""The provenance of a process."""


def loss_of(name: str, lr: float, seed: int = 0) -> float:
    """A parabola in log lr, a little off for every seed, that ends at the untrained model's loss."""
    best, lowest = BEST[name]
    return min(UNTRAINED, lowest + 0.03 * math.log2(lr / best) ** 2 + 0.002 * math.sin(7 * seed))


def trial(
    stage: str, name: str, lr: float, seed: int = 0, *, metric: str = "val/loss", **changed: Any
) -> TrialResult:
    """A training as `loss_of` has it; above lr 0.5 it diverges. An accuracy is 1 minus half of the loss."""
    optimizer = changed.pop("optimizer", None)
    spec = TrialSpec(stage, lr, {"name": name}, seed, changed.pop("steps", STEPS), optimizer=optimizer)
    if lr > 0.5:
        return TrialResult(spec, "diverged", 25, 0.1, cause="not_finite")
    first, loss = UNTRAINED, changed.pop("loss", None) or loss_of(name, lr, seed)
    if metric == "val/accuracy":
        first, loss = 1 - first / 2, 1 - loss / 2
    summary = MetricSummary(first, loss, min(loss, first), max(loss, first))
    return TrialResult(spec, "complete", spec.steps, 0.5, UNTRAINED, {metric: summary}, **changed)


def plan_of(metric: str = "val/loss", **changed: Any) -> StudyPlan:
    """A plan of `STEPS` updates."""
    return load_plan({"steps": STEPS, "objective": {"metric": metric}, **changed})


def stages_of(
    metric: str = "val/loss", *, proxy: float = 1.0, blind: bool = False
) -> tuple[StageResult, ...]:
    """The five stages of a study; `blind` without a bracket, so on a wide grid."""
    short: dict[str, Any] = {"metric": metric, "steps": round(proxy * STEPS)}
    grid = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0] if blind else [0.0094, 0.0375, 0.15, 0.6]
    coarse = [trial("coarse", "constant", lr, **short) for lr in grid]
    coarse += [trial("coarse", "constant", grid[2], seed, **short) for seed in (1, 2)]
    decay = [trial("decay", name, lr, metric=metric) for name in ("linear", "cosine") for lr in (0.1, 0.2)]
    decay += [trial("decay", "linear", 0.05, metric=metric), trial("decay", "linear", 0.8, metric=metric)]
    baseline = trial("confirm", "constant", 1e-3, 1000, metric=metric, optimizer="adam", loss=0.41)
    confirm = [
        trial("confirm", name, BEST[name][0], 1000 + k, metric=metric) for k in range(3) for name in BEST
    ]
    bracket = None if blind else Bracket(0.0012, 1.2)
    verdict = "flat" if blind else "ok"
    return (
        StageResult("range-test", (), 1.0, SweepFindings(0.05, bracket, verdict, "")),
        StageResult(
            "coarse",
            tuple(coarse),
            5.125 * proxy,
            CoarseFindings(0.0494, 0.0021, needs_warmup=False, runs_differ=None),
        ),
        StageResult(
            "fine",
            (trial("fine", "constant", 0.05, **short),),
            proxy,
            FineFindings(0.05, None),
        ),
        StageResult(
            "decay",
            tuple(decay),
            5.125,
            DecayFindings((RankedSchedule("linear", 0.1), RankedSchedule("cosine", 0.1))),
        ),
        StageResult(
            "confirm",
            (baseline, *confirm),
            10.0,
            ConfirmFindings("linear at 0.1", "lowest mean val/loss"),
        ),
    )


def answer_of(
    stages: Sequence[StageResult], metric: str = "val/loss", winner: str = "linear", **changed: Any
) -> Answer:
    """The answer that the stages give."""
    plan = plan_of(metric)
    candidates = {
        name: Candidate(
            f"{name} at {lr}",
            name,
            lr,
            {
                t.spec.seed: loss
                for t in stages[-1].trials
                if t.spec.schedule == {"name": name} and t.spec.optimizer is None
                if (loss := plan.objective.as_loss(t)) is not None
            },
        )
        for name, (lr, _) in BEST.items()
    }
    order = sorted(BEST, key=BUILT_IN.index)
    finalists = tuple(
        Finalist(
            candidate.name,
            candidate.lr,
            {"name": name},
            {seed: plan.objective.from_loss(loss) for seed, loss in candidate.objectives.items()},
            gain=None
            if name == winner
            else gain_over(
                candidate,
                candidates[winner],
                MARGIN,
                simpler=order.index(name) < order.index(winner),
                paired=plan.confirm.paired,
                level=plan.level,
            ),
        )
        for name, candidate in candidates.items()
    )
    chosen = next(finalist for finalist in finalists if finalist.schedule == {"name": winner})
    trials = [t for stage in stages for t in stage.trials if t.spec.schedule == {"name": winner}]
    fit = Response(observe(plan, [t for t in trials if t.spec.optimizer is None])).fit()
    values: dict[str, Any] = {
        "lr": chosen.lr,
        "schedule": chosen.schedule,
        "base_lr": BEST["constant"][0],
        "objective": chosen.mean,
        "metric": metric,
        "reason": plan.objective.best_mean,
        "interval": fit.interval(0.9),
        "tolerance": fit.tolerance(0.01),
        "noise": 0.00213,
        "margin": MARGIN,
        "finalists": finalists,
        **changed,
    }
    return Answer(**values)


def with_gain(answer: Answer, name: str, gain: Gain | None) -> Answer:
    """The same with another gain over the finalist of a schedule."""
    finalists = tuple(
        replace(finalist, gain=gain) if finalist.schedule["name"] == name else finalist
        for finalist in answer.finalists
    )
    return replace(answer, finalists=finalists)


def data_of(metric: str = "val/loss", **changed: Any) -> ReportData:
    """A finished study made by hand."""
    stages = changed.pop("stages", stages_of(metric))
    lrs = sweep_lrs(1e-5, 10, 100)
    loss = np.where(lrs < 1e-3, 2.3, np.where(lrs < 1, 1.2, 3.0))
    curve = RangeTestCurve(lrs, loss + 0.01 * np.sin(np.arange(100)))
    values: dict[str, Any] = {
        "name": "made",
        "task": "beans",
        "state": "finished",
        "problem": None,
        "damage": [],
        "plan": plan_of(metric),
        "total_steps": STEPS,
        "steps_per_epoch": 40,
        "settings": {"model": "Net", "parameters": 12345, "weight_decay": 0.01},
        "tags": {"team": "a"},
        "data": {"train": {"name": "Beans", "items": 1000, "fingerprint": "feedbeef"}},
        "stages": stages,
        "answer": answer_of(stages, metric),
        "so_far": None,
        "code": "scheduler = LinearLR(optimizer)\n",
        "curves": [curve],
        "suggestion": suggest(curve),
        "sweep_seconds": 3.0,
        "schedules": {f"{name} at {lr}": np.full(STEPS, lr) for name, (lr, _) in BEST.items()},
        "learning": {"val/loss": {"linear at 0.1": ([0, 100, 200], [2.3, 0.5, 0.33])}},
        "origins": [Origin("2026-01-02 03:04:05 UTC", FACTS)],
        "tracking": "sqlite:///mlflow.db, experiment lrsearch/beans",
        "commands": Commands("lrsearch reproduce made", "lrsearch resume made", "lrsearch search beans"),
        **changed,
    }
    return ReportData(**values)


def unfinished(**changed: Any) -> ReportData:
    """The same, interrupted in its coarse stage."""
    parts: dict[str, Any] = {
        "stages": [stages_of()[0], replace(stages_of()[1], found=None)],
        "answer": None,
        "code": None,
        "learning": {},
        "schedules": {},
    }
    return replace(data_of(), state="interrupted", **{**parts, **changed})


def with_losses() -> ReportData:
    """A study with a diverged training (lr 0.8, 25 updates) and one that raised."""
    stages = list(stages_of())
    spec = trial("coarse", "constant", 0.011).spec
    error = "Traceback (most recent call last):\nValueError: no <b>luck</b>"
    broken = TrialResult(spec, "failed", 50, 1.5, cause="ValueError", error=error)
    stages[1] = replace(stages[1], trials=(*stages[1].trials, broken))
    return data_of(stages=stages, answer=answer_of(stages_of()))
