"""Who is compared: each takes a task and the number of a study, and says what it takes and what it spent.

Costs are in run-equivalents, everything included. Searches that know nothing of learning rates (TPE, random,
halving) look over the oracle's six decades and its six schedules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import optuna

from lrsearch.core.procedure import bracket_of
from lrsearch.core.suggestion import RULES
from lrsearch.schedules import schedule_name, schedule_names
from tests.bench.regret.oracle import SCHEDULES
from tests.bench.regret.peers import peer_names, peer_suggestion
from tests.bench.regret.replay import Choice, OracleExecutor, oracle, replay, swept
from tests.bench.regret.tasks import CASES

Play = Callable[[str, int], Choice]
"""Called with a task's name and the number of the study."""

_BUDGETS = {"default": 16, "quick": 10}
_FIRST_FRESH_SEED = 1000
_CONFIRMED, _CONFIRM_SEEDS = 2, 2


@dataclass(frozen=True)
class Contestant:
    """One row of the table; `group` is the table it stands in, `about` what it does."""

    name: str
    group: str
    about: str
    play: Play


def contestants() -> list[Contestant]:
    """All that can be replayed."""
    return [*_ours(), *_rules(), *_peers(), *_searches(), *_recipes(), *_ablations()]


def _ours() -> list[Contestant]:
    about = {
        "default": "the default plan, at most 16 run-equivalents",
        "quick": "the quick plan, at most 10 run-equivalents",
        "thorough": "the thorough plan, at most 60; its families are those of the oracle",
    }
    families = {"thorough": {"decay": {"families": list(SCHEDULES)}}}
    return [
        Contestant(preset, "ours", text, partial(_study, preset=preset, changes=families.get(preset, {})))
        for preset, text in about.items()
    ]


def _study(task: str, number: int, *, preset: str, changes: Mapping[str, Any]) -> Choice:
    return replay(task, number, preset, changes).choice


def _rules() -> list[Contestant]:
    """The range test alone, three sweeps."""
    return [
        Contestant(
            f"range test, {rule}{f' + {schedule}' if schedule != 'constant' else ''}",
            "rules",
            f"our range test of three seeds, rule {rule}, {schedule}",
            partial(_rule, rule=rule, schedule=schedule),
        )
        for rule in RULES
        for schedule in ("constant", "cosine")
    ]


def _rule(name: str, number: int, *, rule: str, schedule: str) -> Choice:
    suggestion, cost = swept(name, "default", number, 3)
    lr = suggestion.rules.get(rule) if suggestion.lr is not None else None
    return Choice(lr, schedule, cost)


def _peers() -> list[Contestant]:
    return [
        Contestant(
            f"{peer}{' + cosine' if schedule == 'cosine' else ''}",
            "peers",
            f"{peer}'s own sweep with its defaults and its suggestion, {schedule}",
            partial(_peer, peer=peer, schedule=schedule),
        )
        for peer in peer_names()
        for schedule in ("constant", "cosine")
    ]


def _peer(name: str, number: int, *, peer: str, schedule: str) -> Choice:
    lr, cost = peer_suggestion(name, peer, number)
    return Choice(lr, schedule, cost)


def _searches() -> list[Contestant]:
    samplers = {"TPE": "optuna's TPESampler", "random": "random search"}
    found = [
        Contestant(
            f"{label}, {budget} runs",
            "searches",
            f"{about} over lr and schedule, the best of {budget} single runs",
            partial(_sampled, sampler=label, budget=budget),
        )
        for budget in _BUDGETS.values()
        for label, about in samplers.items()
    ]
    found += [
        Contestant(
            f"{label} in our bracket, confirmed, {_BUDGETS['default']} runs",
            "searches",
            f"{about} within our range test's bracket, its best two on two fresh seeds, within our budget",
            partial(_bracketed, sampler=label, budget=_BUDGETS["default"]),
        )
        for label, about in samplers.items()
    ]
    return [
        *found,
        Contestant(
            f"successive halving, {_BUDGETS['default']} runs",
            "searches",
            "random lrs and schedules; after a quarter, and again after half of the training, the worse half "
            "is stopped",
            partial(_halving, budget=float(_BUDGETS["default"])),
        ),
    ]


def _sampled(name: str, number: int, *, sampler: str, budget: int) -> Choice:
    executor = OracleExecutor(oracle(name), number)
    low, high = float(executor.oracle.lrs[0]), float(executor.oracle.lrs[-1])
    tried = _sample(executor, sampler, budget, low, high, number)
    _, lr, schedule = min(tried)
    return Choice(lr if math.isfinite(min(tried)[0]) else None, schedule, float(budget))


def _bracketed(name: str, number: int, *, sampler: str, budget: int) -> Choice:
    executor = OracleExecutor(oracle(name), number)
    suggestion, cost = swept(name, "default", number, 3)
    bracket = bracket_of(suggestion)
    low, high = float(executor.oracle.lrs[0]), float(executor.oracle.lrs[-1])
    if bracket is not None:
        low, high = bracket.low, bracket.high or high
    runs = int(budget - cost) - _CONFIRMED * _CONFIRM_SEEDS
    tried = sorted(_sample(executor, sampler, runs, low, high, number))[:_CONFIRMED]
    seeds = range(_FIRST_FRESH_SEED, _FIRST_FRESH_SEED + _CONFIRM_SEEDS)
    means = [
        (float(np.mean([executor.loss(lr, schedule, seed) for seed in seeds])), lr, schedule)
        for _, lr, schedule in tried
    ]
    loss, lr, schedule = min(means)
    return Choice(lr if math.isfinite(loss) else None, schedule, cost + runs + len(means) * len(seeds))


def _sample(
    executor: OracleExecutor, sampler: str, runs: int, low: float, high: float, number: int
) -> list[tuple[float, float, str]]:
    """So many trainings, a fresh seed each, as (loss, lr, schedule)."""
    chosen: optuna.samplers.BaseSampler = (
        optuna.samplers.TPESampler(seed=number) if sampler == "TPE" else optuna.samplers.RandomSampler(number)
    )
    search = optuna.create_study(sampler=chosen)
    worst = executor.oracle.initial
    tried = []
    for seed in range(runs):
        trial = search.ask()
        lr = trial.suggest_float("lr", low, high, log=True)
        schedule = trial.suggest_categorical("schedule", SCHEDULES)
        loss = executor.loss(lr, schedule, seed)
        search.tell(trial, loss if math.isfinite(loss) else worst)
        tried.append((loss, lr, schedule))
    return tried


def _halving(name: str, number: int, *, budget: float) -> Choice:
    """Rungs at a quarter, half and the whole: n/4 + n/2 * 1/4 + n/4 * 1/2 run-equivalents of n trainings."""
    executor = OracleExecutor(oracle(name), number)
    rng = executor.rng(2**31)  # no training's seed
    low, high = np.log(executor.oracle.lrs[[0, -1]])
    started = int(budget / (0.25 + 0.125 + 0.125))
    alive = [
        (float(np.exp(rng.uniform(low, high))), str(rng.choice(SCHEDULES)), seed) for seed in range(started)
    ]
    for share in (0.25, 0.5):
        ranked = sorted(alive, key=lambda config: executor.loss_after(share, *config))
        alive = ranked[: len(ranked) // 2]
    loss, lr, schedule = min(
        (executor.loss(lr, schedule, seed), lr, schedule) for lr, schedule, seed in alive
    )
    cost = 0.25 * started + 0.25 * (started // 2) + 0.5 * (started // 4)
    return Choice(lr if math.isfinite(loss) else None, schedule, cost)


def _recipes() -> list[Contestant]:
    return [
        Contestant(
            "the optimizer's default lr", "recipes", "1e-3, torch's own; no decay", partial(_default_lr)
        ),
        Contestant(
            "decades, then step decay",
            "recipes",
            "1e-6 to 1 by decades without decay, then step decay at the best, whichever is better",
            _textbook,
        ),
    ]


def _default_lr(name: str, number: int) -> Choice:
    return Choice(CASES[name].default_lr, "constant", 0.0)


def _textbook(name: str, number: int) -> Choice:
    executor = OracleExecutor(oracle(name), number)
    tried = [(executor.loss(10.0**k, "constant", 0), 10.0**k, "constant") for k in range(-6, 1)]
    best = min(tried)
    stepped = (executor.loss(best[1], "step", 0), best[1], "step")
    loss, lr, schedule = min(best, stepped)
    return Choice(lr if math.isfinite(loss) else None, schedule, float(len(tried) + 1))


ABLATIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "with fine": ("up to three further lrs after the coarse grid", {"fine": {"trials": 3}}),
    "without moving the lr for decay": (
        "every family at the base lr, and nowhere else",
        {"decay": {"peak_factor": 1.0, "trials": 3, "extended": 1}},
    ),
    "shift 1": ("families begin at the base lr", {"decay": {"peak_factor": 1.0}}),
    "shift 4": ("families begin at four times the base lr", {"decay": {"peak_factor": 4.0}}),
    "base under linear": ("the base lr is searched under linear", {"base_schedule": "linear"}),
    "base under cosine": (
        "the base lr is searched under cosine, which is one more family",
        {
            "base_schedule": "cosine",
            "decay": {"families": ["constant", "cosine", "linear", "wsd", "one_cycle"]},
        },
    ),
    "coarse factor 2": (
        "seven lrs a factor of 2 apart, at 20 run-equivalents",
        {"budget": 20.0, "coarse": {"factor": 2.0, "points": 7}},
    ),
    "coarse factor 4": ("four lrs a factor of 4 apart", {"coarse": {"factor": 4.0, "points": 4}}),
    "all six families": (
        "cosine and step decay too, at 18 run-equivalents",
        {"budget": 18.0, "decay": {"families": list(SCHEDULES)}},
    ),
    "two families followed": ("the best two by octaves, not the best", {"decay": {"extended": 2}}),
    "one confirm seed": ("the finalists on a single fresh seed", {"confirm": {"seeds": 1, "max_seeds": 1}}),
    "three confirm seeds": ("the finalists on three to six", {"confirm": {"seeds": 3, "max_seeds": 6}}),
    "margin 0.5%": ("a simpler schedule may lose 0.5%, not 0.2%", {"delta": 0.005}),
    "24 run-equivalents": (
        "four lrs a factor of 4 apart, fine, six families of which two are followed, three seeds",
        {
            "budget": 24.0,
            "coarse": {"factor": 4.0, "points": 4, "replicates": 2},
            "fine": {"trials": 3},
            "decay": {"families": list(SCHEDULES), "extended": 2},
            "confirm": {"candidates": 3, "seeds": 3, "max_seeds": 6},
        },
    ),
}
"""By name what it means, and what it changes in the default plan."""


def _ablations() -> list[Contestant]:
    return [
        *(
            Contestant(name, "ablations", about, partial(_study, preset="default", changes=changes))
            for name, (about, changes) in ABLATIONS.items()
        ),
        Contestant("without range test", "ablations", "the grid is 1e-6 to 1", _without_range_test),
        Contestant("without confirm", "ablations", "what the decay stage expects to be best", _unconfirmed),
        Contestant(
            "one-standard-error rule",
            "ablations",
            "the simplest finalist within one standard error of the best mean",
            _one_standard_error,
        ),
    ]


def _without_range_test(task: str, number: int) -> Choice:
    return replay(task, number, sweeps=False).choice


def _unconfirmed(task: str, number: int) -> Choice:
    """The best mean loss under any schedule before the confirm stage."""
    found = replay(task, number)
    cost = found.cost - sum(stage.cost for stage in found.stages if stage.stage == "confirm")
    if found.base is None:
        return Choice(None, "constant", cost)
    losses: dict[tuple[float, str], list[float]] = {}
    for stage in found.stages:
        for trial in stage.trials:
            if stage.stage != "confirm":
                final = trial.metrics["val/loss"].final if trial.status == "complete" else math.inf
                schedule = schedule_name(trial.spec.schedule).removeprefix("warmup+")
                losses.setdefault((trial.spec.lr, schedule), []).append(final)
    lr, schedule = min(losses, key=lambda key: float(np.mean(losses[key])))
    return Choice(lr, schedule, cost)


def _one_standard_error(task: str, number: int) -> Choice:
    found = replay(task, number)
    if found.confirmed is None:
        return found.choice
    alive = [candidate for candidate in found.confirmed.candidates if not candidate.diverged]
    order = schedule_names()
    best = min(alive, key=lambda candidate: candidate.mean)
    values = list(best.objectives.values())
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
    within = [candidate for candidate in alive if candidate.mean <= best.mean + error]
    chosen = min(within, key=lambda candidate: (order.index(candidate.schedule), candidate.lr))
    return Choice(chosen.lr, chosen.schedule.removeprefix("warmup+"), found.cost)
