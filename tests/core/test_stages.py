from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from lrsearch.core.findings import Bracket
from lrsearch.core.presets import PRESETS, load_plan
from lrsearch.core.trial import TrialSpec
from lrsearch.errors import StudyError
from tests.core.synthetic import INITIAL, STEPS, Outcome, Synthetic, study

DEFAULT = load_plan("default")


def winner(outcome: Outcome) -> tuple[str, float]:
    found = outcome.confirmed.decision.winner
    return found.schedule, found.lr


def octaves(lr: float, other: float) -> float:
    return abs(math.log2(lr / other))


@pytest.mark.parametrize("best", [0.003, 0.01, 0.03])
def test_base_lr_is_found_within_an_octave(best: float) -> None:
    assert octaves(study(Synthetic(best=best), DEFAULT).base.lr, best) < 1


@pytest.mark.parametrize("noise_seed", range(5))
@pytest.mark.parametrize("shift", [1.0, 4.0, 8.0])
def test_the_lr_moves_with_decay(shift: float, noise_seed: int) -> None:
    outcome = study(Synthetic(shift=shift, best=0.01, noise_seed=noise_seed), DEFAULT)
    schedule, lr = winner(outcome)
    assert schedule != "constant"
    assert octaves(lr, 0.01 * shift) <= 1


@pytest.mark.parametrize("noise_seed", range(5))
def test_no_decay_is_an_answer(noise_seed: int) -> None:
    outcome = study(Synthetic(gain=-0.02, shift=1.0, noise_seed=noise_seed), DEFAULT)
    assert winner(outcome)[0] == "constant"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shift", [1.0, 8.0])
@pytest.mark.parametrize("best", [1e-4, 0.01, 0.3])
def test_a_preset_never_costs_more_than_it_says(preset: str, shift: float, best: float) -> None:
    plan = load_plan(preset)
    outcome = study(Synthetic(shift=shift, best=best, noise=0.02), plan)
    assert outcome.budget.spent <= plan.budget


def test_presets_cost_what_was_promised() -> None:
    assert load_plan("quick").budget <= 10
    assert load_plan("default").budget <= 16


@pytest.mark.parametrize("best", [2e-4, 0.2])
def test_grid_grows_until_the_best_is_interior(best: float) -> None:
    outcome = study(Synthetic(best=best, edge=2.0), load_plan("thorough"))
    assert outcome.base.on_edge is None
    assert octaves(outcome.base.lr, best) < 1


def test_noise_is_measured_before_the_fine_stage() -> None:
    outcome = study(Synthetic(noise=0.01), DEFAULT)
    seeds = {trial.spec.seed for trial in outcome.stages[0].trials}
    assert seeds == {0, 1}
    assert outcome.base.noise is not None
    assert 0.001 < outcome.base.noise.sd < 0.05


@pytest.mark.parametrize("preset", ["default", "thorough"])
@pytest.mark.parametrize("best", [3e-7, 2e-5, 3e-4, 0.01, 0.4])
def test_without_a_bracket_the_grid_walks_until_both_sides_are_worse(preset: str, best: float) -> None:
    lab = Synthetic(best=best, edge=20.0)
    outcome = study(lab, load_plan(preset), bracket=None)
    tried = sorted({spec.lr for spec in lab.trained if spec.stage == "coarse"})
    assert max(high / low for low, high in itertools.pairwise(tried)) <= 10 * (1 + 1e-9)
    assert tried[0] < best < tried[-1]
    assert octaves(outcome.base.lr, best) < 1.7


@pytest.mark.parametrize("preset", ["quick", "default", "thorough"])
def test_where_nothing_beats_the_untrained_model_the_grid_goes_on_down(preset: str) -> None:
    """A bracket far too high: at every lr of its grid the training ends above where it began."""
    lab = Synthetic(best=1e-5, curvature=0.03, edge=20.0)
    outcome = study(lab, load_plan(preset), Bracket(0.01, 1.0))
    assert octaves(outcome.base.lr, 1e-5) < 2
    assert outcome.confirmed.decision.winner.mean < INITIAL


def test_all_lrs_diverging_is_said() -> None:
    with pytest.raises(StudyError, match=r"every lr from .* diverged"):
        study(Synthetic(edge=1e-15), DEFAULT)


def test_the_same_loss_everywhere_is_said() -> None:
    with pytest.raises(StudyError, match=r"gave the same val/loss, 0\.4"):
        study(Synthetic(flat=True), DEFAULT)


class Capped(Synthetic):
    """Whose optimizer is given no lr above 0.0005, far below the grid."""

    def loss(self, spec: TrialSpec) -> float:
        return super().loss(replace(spec, lr=min(spec.lr, 5e-4)))


@pytest.mark.parametrize("preset", ["quick", "default", "thorough"])
def test_where_a_cap_makes_the_whole_grid_equal_it_goes_on_down_to_where_lrs_differ(preset: str) -> None:
    outcome = study(Capped(best=0.01, noise=0.0, gain=0.0, shift=1.0), load_plan(preset))
    assert min(trial.spec.lr for trial in outcome.stages[0].trials) < 5e-4
    assert outcome.base.lr >= 4e-4


def test_a_study_of_which_a_third_raises_stops_with_the_reason() -> None:
    with pytest.raises(StudyError, match=r"2 of 2 trials raised, .* with ValueError: ValueError: broken"):
        study(Synthetic(fails=lambda spec: spec.lr < 0.05), DEFAULT)


def test_equal_runs_are_compared_where_the_device_does_not_repeat_itself() -> None:
    assert study(Synthetic(), DEFAULT).base.runs_differ is None
    lab = Synthetic(exact=False, noise=0.01)
    differ = study(lab, DEFAULT).base.runs_differ
    twice = [spec for spec in lab.trained if spec.again]
    assert len(twice) == 1
    assert differ is not None
    assert 0 < differ < 0.1


def test_a_single_failing_trial_does_not_stop_a_study() -> None:
    outcome = study(Synthetic(fails=lambda spec: spec.lr > 0.2 and spec.stage == "coarse"), DEFAULT)
    assert winner(outcome)[0] != "constant"


def test_negating_the_objective_changes_nothing() -> None:
    plain = study(Synthetic(), DEFAULT)
    turned = DEFAULT.with_changes(objective={"direction": "maximize"})
    negated = study(Synthetic(negated=True), turned)
    assert winner(plain) == winner(negated)
    assert [t.spec for s in plain.stages for t in s.trials] == [
        t.spec for s in negated.stages for t in s.trials
    ]


def test_the_same_study_twice_is_the_same() -> None:
    first, second = Synthetic(), Synthetic()
    study(first, load_plan("thorough"))
    study(second, load_plan("thorough"))
    assert first.trained == second.trained


def test_decay_does_not_begin_above_a_cliff_of_the_base_schedule() -> None:
    lab = Synthetic(best=0.3, edge=0.4)
    study(lab, DEFAULT, Bracket(0.004, 0.5))
    survived = [spec.lr for spec in lab.trained if spec.stage == "coarse" and spec.lr <= 0.4]
    first: dict[str, float] = {}
    for spec in lab.trained:
        if spec.stage == "decay":
            first.setdefault(spec.schedule["name"], spec.lr)
    assert set(first.values()) == {max(survived)}


def test_finalists_share_their_fresh_seeds() -> None:
    outcome = study(Synthetic(), DEFAULT)
    before = {t.spec.seed for stage in outcome.stages[:3] for t in stage.trials}
    seeds = [set(c.objectives) for c in outcome.confirmed.candidates]
    assert all(group >= {1000, 1001} for group in seeds)
    assert not before & set().union(*seeds)


def test_more_seeds_are_taken_while_it_is_undecided() -> None:
    close = Synthetic(gain=0.012, shift=1.0, noise=0.012)
    outcome = study(close, load_plan("thorough"))
    assert max(len(c.objectives) for c in outcome.confirmed.candidates) > 3


def test_a_short_proxy_is_checked_at_the_full_length() -> None:
    lab = Synthetic()
    plan = load_plan({"preset": "thorough", "proxy": 0.25})
    outcome = study(lab, plan)
    full = sorted({s.lr for s in lab.trained if s.stage == "fine" and s.steps == STEPS})
    assert len(full) >= 3
    assert full[0] < outcome.base.lr < full[-1]


def test_an_early_divergence_below_the_edge_is_tried_with_warmup() -> None:
    lab = _NeedsWarmup()
    outcome = study(lab, DEFAULT)
    assert outcome.base.needs_warmup
    assert winner(outcome)[0].startswith("warmup+")


class _NeedsWarmup(Synthetic):
    """Above lr 0.002 the first steps diverge, but not after a warmup."""

    def run(self, spec: TrialSpec):  # type: ignore[no-untyped-def]
        warmed = spec.schedule["name"] == "warmup"
        if not warmed and spec.lr > 0.02:
            early = Synthetic(edge=0.02).run(spec)
            return type(early)(**{**vars(early), "steps_done": spec.steps // 20})
        return super().run(spec)


def test_the_bracket_seeds_the_grid() -> None:
    lab = Synthetic(best=0.01)
    study(lab, DEFAULT, Bracket(0.004, 0.5))
    first = [spec.lr for spec in lab.trained[:3]]
    assert first == [0.00391, 0.0312, 0.25]
