"""The answer drawn from a study's findings: what it gains, how sure it is, and every warning."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest

from lrsearch.core.answer import Answer, WarningName
from lrsearch.core.conclude import Evidence, conclude
from lrsearch.core.presets import load_plan
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import MetricSummary, TrialResult, TrialSpec
from lrsearch.report.study_page_data import MENDS
from tests.core.synthetic import INITIAL, STEPS, Outcome, Synthetic, study, summary

PLAN = load_plan("default")


def answered(lab: Synthetic, plan: StudyPlan = PLAN, **found: Any) -> Answer:
    plan = plan.with_changes(base_schedule={"name": "constant"})
    outcome = study(lab, plan)
    return conclude(findings(outcome, plan, **found))


def findings(outcome: Outcome, plan: StudyPlan, **found: Any) -> Evidence:
    usual: dict[str, Any] = {"bracketed": True, "model_info": {}, "total_steps": STEPS}
    return Evidence(
        plan=plan, stages=outcome.stages, base=outcome.base, confirmed=outcome.confirmed, **{**usual, **found}
    )


class WithAccuracy(Synthetic):
    """Reports an accuracy too, whose best lr is `apart` times that of the loss."""

    apart = 1.0
    overfits = 0.0

    def run(self, spec: TrialSpec) -> TrialResult:
        result = super().run(spec)
        if result.status != "complete":
            return result
        octaves = math.log2(spec.lr / (self.best * self.apart))
        noise = 0.0005 * math.sin(spec.seed)
        accuracy = summary(0.1, 0.9 - 0.01 * octaves**2 + noise)
        loss = result.metrics["val/loss"]
        loss = summary(loss.first, loss.final - self.overfits, loss.final)
        return replace(result, metrics={"val/loss": loss, "val/accuracy": accuracy})


def test_a_study_without_a_fault_has_no_warning() -> None:
    assert dict(answered(Synthetic(noise=0.001)).warnings) == {}


def test_the_interval_holds_the_optimum_and_the_tolerance_the_answer() -> None:
    answer = answered(Synthetic(best=0.01, shift=4.0, noise=0.001))
    assert answer.interval.low <= 0.04 <= answer.interval.high
    assert answer.tolerance.low <= answer.lr <= answer.tolerance.high


def test_the_gain_over_constant_is_what_decay_brings() -> None:
    answer = answered(Synthetic(gain=0.04, noise=0.001))
    gain = answer.gain_over_constant
    assert gain is not None
    assert gain.mean == pytest.approx(0.04, abs=0.01)
    assert gain.low is not None
    assert gain.low > 0


def test_where_constant_wins_there_is_no_gain() -> None:
    assert answered(Synthetic(gain=-0.02, shift=1.0)).gain_over_constant is None


def test_the_baseline_is_held_against_the_winner_on_its_seed() -> None:
    answer = answered(Synthetic(best=0.01, noise=0.0))
    adam = Synthetic(best=0.01, noise=0.0).loss(TrialSpec("x", 1e-3, {"name": "constant"}, 1000, STEPS))
    assert answer.gain_over_baseline == pytest.approx(adam - answer.objective, abs=1e-9)


def test_no_bracket_is_said() -> None:
    assert "no sound bracket" in answered(Synthetic(), bracketed=False).warnings["no_bracket"]


def test_a_best_lr_at_the_end_of_the_range_is_said() -> None:
    tight = PLAN.with_changes(coarse={"extensions": 0}, fine={"trials": 0})
    lab = Synthetic(best=1e-5, gain=-0.02, shift=1.0)
    assert "lowest" in answered(lab, tight).warnings["edge"]


@pytest.mark.parametrize(("apart", "said"), [(1.0, False), (1.5, False), (16.0, True), (1 / 16, True)])
def test_metrics_that_prefer_other_lrs_are_named(apart: float, said: bool) -> None:
    lab = WithAccuracy(noise=0.001)
    lab.apart = apart
    warnings = answered(lab).warnings
    assert ("objectives_disagree" in warnings) is said
    assert not said or "val/accuracy" in warnings["objectives_disagree"]


class WithScore(WithAccuracy):
    """The same accuracy under a name that does not say whether higher is better; `sign` turns it."""

    apart = 16.0
    sign = 1.0

    def run(self, spec: TrialSpec) -> TrialResult:
        result = super().run(spec)
        if result.status != "complete":
            return result
        accuracy = result.metrics["val/accuracy"]
        score = summary(self.sign * accuracy.first, self.sign * accuracy.final)
        return replace(result, metrics={"val/loss": result.metrics["val/loss"], "val/score": score})


def test_a_metric_of_unknown_direction_prefers_no_lr() -> None:
    assert "objectives_disagree" not in answered(WithScore(noise=0.001)).warnings


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1.0), ("minimize", -1.0)])
def test_the_direction_given_is_that_of_the_disagreement(direction: str, sign: float) -> None:
    lab = WithScore(noise=0.001)
    lab.sign = sign
    plan = PLAN.with_changes(objective={"metric": "val/score", "direction": direction})
    said = re.fullmatch(
        r"val/score prefers lr (.*), val/loss prefers (.*): choose .*",
        answered(lab, plan).warnings["objectives_disagree"],
    )
    assert said is not None
    assert float(said[1]) == pytest.approx(0.16, rel=0.3)
    assert float(said[2]) == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize(("overfits", "said"), [(0.0, False), (0.001, False), (0.1, True)])
def test_a_final_value_worse_than_the_best_is_said(overfits: float, said: bool) -> None:
    lab = WithAccuracy(noise=0.001)
    lab.overfits = overfits
    assert ("overfitting" in answered(lab).warnings) is said


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"weight_decay": 0.05, "decoupled_weight_decay": 1.0}, True),
        ({"weight_decay": 0.05}, False),
        ({"weight_decay": 0.0, "decoupled_weight_decay": 1.0}, False),
        ({"weight_decay": 1e-6, "decoupled_weight_decay": 1.0}, False),
    ],
)
def test_lr_and_weight_decay_that_are_one_setting(facts: dict[str, float], said: bool) -> None:
    warnings = answered(Synthetic(), model_info=facts).warnings
    assert ("lr_and_weight_decay_tuned_together" in warnings) is said


def test_finalists_that_cannot_be_told_apart_are_named() -> None:
    answer = answered(Synthetic(), PLAN.with_changes(confirm={"seeds": 1, "max_seeds": 1}))
    assert answer.undecided
    assert not answer.warnings  # it is part of the answer, and nothing to act on


def test_failed_trials_and_accepted_changes_are_said() -> None:
    lab = Synthetic(fails=lambda spec: spec.stage == "coarse" and spec.lr > 0.2)
    warnings = answered(lab, accepted=("data.train.fingerprint",)).warnings
    assert "ValueError" in warnings["trials_failed"]
    assert "data.train.fingerprint" in warnings["changes_accepted"]


class Spoilt(Synthetic):
    """Of which the confirm stage's trainings differ: one seed is lost, or the baseline is better."""

    def run(self, spec: TrialSpec) -> TrialResult:
        result = super().run(spec)
        if result.status == "complete":
            result = self.changed(result)
        return result

    def changed(self, result: TrialResult) -> TrialResult:
        raise NotImplementedError


class OneSeedIsLost(Spoilt):
    def changed(self, result: TrialResult) -> TrialResult:
        lost = result.spec.seed == 1001 and result.spec.optimizer is None
        return replace(result, metrics={"val/loss": summary(INITIAL, 1.5)}) if lost else result


class TheBaselineIsBetter(Spoilt):
    def changed(self, result: TrialResult) -> TrialResult:
        return (
            replace(result, metrics={"val/loss": summary(INITIAL, 0.1)}) if result.spec.optimizer else result
        )


class NothingIsLearned(Spoilt):
    def changed(self, result: TrialResult) -> TrialResult:
        final = INITIAL + result.metrics["val/loss"].final
        return replace(result, metrics={"val/loss": summary(INITIAL, final)})


class BadBatches(Spoilt):
    def changed(self, result: TrialResult) -> TrialResult:
        return replace(result, bad_data="3 batches were passed over")


class BeginsWhereItEnded(Spoilt):
    """As a loop does whose model is made outside of it."""

    def changed(self, result: TrialResult) -> TrialResult:
        first = INITIAL if len(self.trained) == 1 else 0.5
        losses = MetricSummary(first, 0.4, 0.4, first, result.steps_done)
        return replace(result, metrics={**result.metrics, "train/loss": losses})


class BeginsAnew(BeginsWhereItEnded):
    """Every seed has its first loss, and the lr may be in it."""

    def changed(self, result: TrialResult) -> TrialResult:
        first = INITIAL * (1 + result.spec.seed % 7) / (1 + result.spec.lr)
        losses = MetricSummary(first, 0.4, 0.4, first, result.steps_done)
        return replace(result, metrics={**result.metrics, "train/loss": losses})


class LeavesOut(Spoilt):
    def changed(self, result: TrialResult) -> TrialResult:
        return replace(result, warnings=("it did not build the trial's schedule",))


def overfits() -> Answer:
    lab = WithAccuracy(noise=0.001)
    lab.overfits = 0.1
    return answered(lab)


def disagrees() -> Answer:
    lab = WithAccuracy(noise=0.001)
    lab.apart = 16.0
    return answered(lab)


def needs_warmup() -> Answer:
    outcome = study(Synthetic(), PLAN)
    return conclude(replace(findings(outcome, PLAN), base=replace(outcome.base, needs_warmup=True)))


def at_the_end() -> Answer:
    tight = PLAN.with_changes(coarse={"extensions": 0}, fine={"trials": 0})
    return answered(Synthetic(best=1e-5, gain=-0.02, shift=1.0), tight)


DECOUPLED = {"weight_decay": 0.05, "decoupled_weight_decay": 1.0}
SITUATIONS: dict[WarningName, Callable[[], Answer]] = {
    "no_bracket": lambda: answered(Synthetic(), bracketed=False),
    "edge": at_the_end,
    "needs_warmup": needs_warmup,
    "objectives_disagree": disagrees,
    "overfitting": overfits,
    "lr_and_weight_decay_tuned_together": lambda: answered(Synthetic(), model_info=DECOUPLED),
    "untrained": lambda: answered(NothingIsLearned()),
    "unstable": lambda: answered(OneSeedIsLost(gain=-0.02, shift=1.0)),
    "baseline_better": lambda: answered(TheBaselineIsBetter()),
    "bad_data": lambda: answered(BadBatches()),
    "trials_failed": lambda: answered(Synthetic(fails=lambda s: s.stage == "coarse" and s.lr > 0.2)),
    "own_loop": lambda: answered(LeavesOut()),
    "changes_accepted": lambda: answered(Synthetic(), accepted=("data.train.fingerprint",)),
    "runs_differ": lambda: answered(Synthetic(exact=False, noise=0.01)),
}
"""What a user has to act on."""


@pytest.mark.parametrize("name", get_args(WarningName))
def test_what_is_to_be_acted_on_is_said_with_how(name: WarningName) -> None:
    assert name in SITUATIONS[name]().warnings
    assert MENDS[name]


@pytest.mark.parametrize("noise_seed", range(10))
@pytest.mark.parametrize("preset", ["quick", "default"])
def test_a_sound_study_warns_of_nothing(preset: str, noise_seed: int) -> None:
    """Also where finalists cannot be told apart, and where a schedule was tried at one lr."""
    assert not answered(Synthetic(noise_seed=noise_seed), load_plan(preset)).warnings


def test_a_loop_that_ignores_its_seed_is_told_so() -> None:
    said = answered(Synthetic(noise=0.0)).warnings["own_loop"]
    assert re.search(r"seeds \d+ and \d+ gave the same numbers at lr .*: does it seed itself\?", said)
    assert "own_loop" not in answered(Synthetic(noise=0.0), model_info={"model": "Linear"}).warnings


def test_a_loop_that_trains_one_model_on_and_on_is_told_so() -> None:
    said = answered(BeginsWhereItEnded()).warnings["own_loop"]
    assert "trainings of seed 0 began at losses from 0.5 to 2.3: make the model anew in the function" in said
    assert "own_loop" not in answered(BeginsAnew()).warnings


def test_noise_that_was_not_measured_is_none() -> None:
    """One seed at the end, and another lr on the way there: no configuration has two."""
    once = PLAN.with_changes(confirm={"seeds": 1, "max_seeds": 1}, coarse={"replicates": 1})
    lab = Synthetic(fails=lambda spec: spec.stage == "coarse" and spec.seed == 1)
    answer = answered(lab, once)
    assert answer.noise is None
    assert answer.spread is None
    assert Answer.from_dict(answer.to_dict()) == answer


def test_an_answer_survives_json() -> None:
    answer = answered(Synthetic())
    assert Answer.from_dict(answer.to_dict()) == answer
