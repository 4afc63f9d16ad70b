"""The response surface as an Optuna sampler, in real Optuna studies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler

from lrsearch import InputError, SurfaceSampler
from lrsearch.core.family import CONSTANT, Family, family_of
from lrsearch.core.proposal import Question, choose
from lrsearch.core.surface import Observation, Place
from lrsearch.study.surface_sampler import axes_of

LOW, HIGH = 1e-5, 10.0
BEST = {"constant": 0.01, "linear": 0.03}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def excess(lr: float, schedule: str) -> float:
    """How far a training ends above the best one; linear is the better schedule."""
    return min(0.02 * math.log2(lr / BEST[schedule]) ** 2, 2.0) + 0.03 * (schedule == "constant")


def octaves(lr: float, other: float) -> float:
    return abs(math.log2(lr / other))


def suggested(trial: optuna.Trial) -> tuple[float, str]:
    lr = trial.suggest_float("lr", LOW, HIGH, log=True)
    return lr, trial.suggest_categorical("schedule", ["constant", "linear"])


def noisy(seed: int) -> Callable[[optuna.Trial], float]:
    rng = np.random.default_rng(seed)
    return lambda trial: 0.3 + excess(*suggested(trial)) + 0.004 * rng.standard_normal()


def study(
    sampler: BaseSampler, objective: Callable[[optuna.Trial], float], trials: int, **how: Any
) -> optuna.Study:
    made = optuna.create_study(sampler=sampler, **how)
    made.optimize(objective, n_trials=trials)
    return made


def trials_until_near(sampler: BaseSampler, seed: int, near: float = 0.01, most: int = 60) -> int:
    """How many trials a study takes to train within half a percent of the way of the best one."""
    made = optuna.create_study(sampler=sampler)
    objective = noisy(seed)
    for count in range(1, most + 1):
        made.optimize(objective, n_trials=1)
        if excess(**made.trials[-1].params) < near:
            return count
    return most


# --- what it finds -----------------------------------------------------------------------------------------


def test_it_finds_a_noisy_optimum_over_lr_and_schedule_in_far_fewer_trials_than_random() -> None:
    seeds = range(5)
    own = [trials_until_near(SurfaceSampler(way=2.0, seed=seed), seed) for seed in seeds]
    random = [trials_until_near(RandomSampler(seed=seed), seed) for seed in seeds]
    assert 2 * np.mean(own) < np.mean(random), (own, random)
    assert max(own) <= 20, own


def test_it_maximizes() -> None:
    losses = study(SurfaceSampler(way=2.0), noisy(0), 8)
    minus = noisy(0)
    gains = study(SurfaceSampler(way=2.0), lambda trial: -minus(trial), 8, direction="maximize")
    assert [t.params for t in gains.trials] == [t.params for t in losses.trials]


def test_without_a_way_the_worst_trial_tells_it() -> None:
    found = study(SurfaceSampler(), noisy(1), 12)
    assert excess(**found.best_params) < 0.05


def test_without_a_schedule_it_looks_for_the_lr_alone() -> None:
    def objective(trial: optuna.Trial) -> float:
        return excess(trial.suggest_float("lr", LOW, HIGH, log=True), "constant")

    found = study(SurfaceSampler(way=2.0), objective, 10)
    assert octaves(found.best_params["lr"], BEST["constant"]) < 0.75
    assert set(found.best_params) == {"lr"}


def test_no_trial_goes_to_an_lr_that_diverged_or_higher() -> None:
    edge = 0.02

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", LOW, HIGH, log=True)
        trial.set_constraint("diverged", 1.0 if lr > edge else -1.0)
        return 5.0 if lr > edge else excess(lr, "constant")

    made = optuna.create_study(sampler=SurfaceSampler(way=2.0))
    for lr in (0.001, 0.004, 0.016, 0.064):
        made.enqueue_trial({"lr": lr})
    made.optimize(objective, n_trials=10)
    lrs = [trial.params["lr"] for trial in made.trials]
    for k, lr in enumerate(lrs[4:], start=4):
        assert lr < min(other for other in lrs[:k] if other > edge)
    assert octaves(made.best_params["lr"], BEST["constant"]) < 0.5


def test_the_lr_stays_within_its_range() -> None:
    def objective(trial: optuna.Trial) -> float:
        return excess(trial.suggest_float("lr", 0.02, 0.1, log=True), "constant")

    assert all(0.02 <= t.params["lr"] <= 0.1 for t in study(SurfaceSampler(way=2.0), objective, 8).trials)


def test_where_nothing_new_is_left_the_lr_is_drawn_at_random() -> None:
    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("lr", 0.01, 0.0101, log=True)

    assert len({t.params["lr"] for t in study(SurfaceSampler(), objective, 4).trials}) == 4


def test_other_parameters_are_drawn_at_random() -> None:
    def objective(trial: optuna.Trial) -> float:
        width = trial.suggest_int("width", 1, 1000)
        return excess(*suggested(trial)) + 0 * width

    found, other = (
        [t.params["width"] for t in study(SurfaceSampler(way=2.0, seed=s), objective, 8).trials]
        for s in (0, 1)
    )
    assert len(set(found)) > 4
    assert found != other


# --- what it says again, and refuses -----------------------------------------------------------------------


def test_the_same_trials_give_the_same_suggestions() -> None:
    first, second = (study(SurfaceSampler(way=2.0, seed=3), noisy(2), 8) for _ in range(2))
    assert [t.params for t in first.trials] == [t.params for t in second.trials]


def test_a_study_that_goes_on_is_suggested_what_it_would_have_been() -> None:
    """Whatever the sampler has drawn before: the trials alone decide."""
    whole = study(SurfaceSampler(way=2.0), noisy(2), 6)
    resumed = optuna.create_study(sampler=SurfaceSampler(way=2.0, seed=9))
    resumed.add_trials(whole.trials[:5])
    assert suggested(resumed.ask()) == tuple(whole.trials[5].params.values())


@pytest.mark.parametrize(
    "suggest",
    [
        lambda trial: trial.suggest_float("lr", 0.1, 1.0),
        lambda trial: trial.suggest_int("lr", 1, 3),
        lambda trial: trial.suggest_categorical("lr", [0.1, 0.01]),
    ],
)
def test_an_lr_that_is_not_on_a_log_scale_is_refused_in_one_line(
    suggest: Callable[[optuna.Trial], float],
) -> None:
    with pytest.raises(InputError, match=r"use suggest_float\('lr', low, high, log=True\)") as caught:
        study(SurfaceSampler(), suggest, 2)
    assert caught.value.argument == "lr"
    assert "\n" not in str(caught.value)


def test_a_schedule_that_is_not_known_is_refused() -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("schedule", ["constant", "cosin"])
        return trial.suggest_float("lr", LOW, HIGH, log=True)

    with pytest.raises(InputError, match="cosin"):
        study(SurfaceSampler(), objective, 2)


# --- as the stages ask it ----------------------------------------------------------------------------------

LINEAR = family_of({"name": "linear"})
SHORT, LONG = (family_of({"name": "wsd", "cooldown": share}) for share in (0.1, 0.3))
WARMED, WARMED_LINEAR = (
    family_of({"name": "warmup", "inner": {"name": name}, "fraction": 0.05})
    for name in ("constant", "linear")
)


def seen(*families: Family, seed: int = 0) -> tuple[Observation, ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        Observation(lr, 0.3 + excess(lr, "constant") + 0.004 * rng.standard_normal(), k, family=family)
        for family in families
        for k, lr in enumerate((0.0025, 0.01, 0.04))
    )


LOST = Observation(0.16, None, diverged=True)
QUESTIONS = {
    "one": Question(seen(CONSTANT), 2.0, (CONSTANT,), (CONSTANT,)),
    "diverged": Question((*seen(CONSTANT), LOST), 2.0, (CONSTANT,), (CONSTANT,)),
    "untried": Question(seen(CONSTANT, seed=1), 2.0, (CONSTANT, LINEAR, SHORT), (CONSTANT, LINEAR, SHORT)),
    "one-name": Question(seen(CONSTANT, SHORT), 2.0, (SHORT, LONG), (SHORT, LONG)),
    "warmed": Question(
        seen(CONSTANT, LINEAR, WARMED),
        2.0,
        (CONSTANT, WARMED, WARMED_LINEAR),
        (CONSTANT, WARMED, WARMED_LINEAR),
    ),
    "answers": Question(seen(CONSTANT, LINEAR), 2.0, (CONSTANT,), (LINEAR,)),
    "range": Question(seen(CONSTANT), 2.0, (CONSTANT, LINEAR), (LINEAR,), low=0.02, high=0.03),
    "nothing-new": Question(seen(CONSTANT), 2.0, (CONSTANT,), (CONSTANT,), low=0.0099, high=0.0101),
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_what_was_known_before_is_asked_as_the_surface_chooses(question: Question) -> None:
    families = {family.key: family for family in question.families}
    trial = optuna.create_study(sampler=SurfaceSampler(before=question)).ask(axes_of(question))
    found = trial.relative_params
    place = Place(found["lr"], families[found["schedule"]]) if found else None
    assert place == choose(question)
