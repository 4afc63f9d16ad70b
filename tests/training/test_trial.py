"""A training loop of one's own: what a trial hands it, and what is found when it leaves something out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import nn

import lrsearch
from lrsearch.core.results import TrialResult, TrialSpec
from lrsearch.errors import InputError, StopTrial
from lrsearch.training.trial import Trial

INPUTS = torch.randn(512, 8, generator=torch.Generator().manual_seed(0))
TARGETS = (INPUTS[:, 0] * INPUTS[:, 1] > 0).long()
CPU = torch.device("cpu")


def train(trial: Trial) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.lr, momentum=0.9)
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps + 1):
        rows = torch.randint(0, len(INPUTS), (32,))
        loss = nn.functional.cross_entropy(model(INPUTS[rows]), TARGETS[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        trial.report(step, train_loss=loss)


class Recorder:
    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        self.points.append((step, dict(metrics)))


def not_finite(loss: float) -> str | None:
    return None if math.isfinite(loss) else f"the loss {loss} is not finite"


def make_trial(
    schedule: Mapping[str, object], steps: int = 40, lr: float = 0.1, log_every: int = 1
) -> tuple[Trial, Recorder]:
    recorder = Recorder()
    spec = TrialSpec("coarse", lr=lr, schedule=schedule, seed=0, steps=steps, log_every=log_every)
    return Trial(spec, CPU, record=recorder, monitor=not_finite), recorder


def test_the_range_test_comes_to_an_own_loop_as_its_schedule() -> None:
    curve = lrsearch.range_test(train, steps=300, tracking=False, progress=False).curves[0]
    again = lrsearch.range_test(train, steps=300, tracking=False, progress=False).curves[0]
    assert curve == again
    np.testing.assert_allclose(curve.lrs[[0, -1]], [1e-7, 10.0])
    assert lrsearch.range_test(train, steps=300, tracking=False, progress=False).lr is not None


def test_an_own_loop_leaves_the_random_states_alone() -> None:
    before = torch.get_rng_state()
    lrsearch.range_test(train, steps=50, tracking=False, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def never_reports(trial: Trial) -> None:
    pass


def ignores_the_schedule(trial: Trial) -> None:
    for step in range(1, trial.steps + 1):
        trial.report(step, train_loss=1.0)


def never_steps_the_scheduler(trial: Trial) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=trial.lr)
    trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps + 1):
        parameter.grad = torch.ones(1)
        optimizer.step()
        trial.report(step, train_loss=1.0)


def leaves_steps_out(trial: Trial) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=trial.lr)
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps + 1):
        parameter.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
        if step % 10 == 0:
            trial.report(step, train_loss=1.0)


def reports_text(trial: Trial) -> None:
    trial.report(1, train_loss="low")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (never_reports, "it never reported"),
        (ignores_the_schedule, "did not build the trial's schedule"),
        (never_steps_the_scheduler, "at step 2 the lr was 1e-07, not the schedule's"),
        (leaves_steps_out, "report every step"),
        (reports_text, "train_loss='low': is no number"),
    ],
)
def test_what_an_own_loop_leaves_out_is_said_in_one_line(
    function: Callable[[Trial], None], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        lrsearch.range_test(function, steps=40, tracking=False, progress=False)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_the_own_loop_decides_are_refused() -> None:
    with pytest.raises(InputError, match=r"clip=1\.0: is the business of your training function"):
        lrsearch.range_test(train, clip=1.0, tracking=False)


def test_a_trial_records_the_lr_of_the_very_update_and_keeps_final_and_best() -> None:
    trial, recorder = make_trial({"name": "linear"})
    train(trial)
    trial.report(40, val_loss=0.5, val_accuracy=0.75)
    trial.report(40, val_loss=0.6, val_accuracy=0.80)
    lrs = [metrics["lr"] for _, metrics in recorder.points if "lr" in metrics]
    np.testing.assert_allclose(lrs, 0.1 * (1 - np.arange(40) / 40))
    result = trial.result()
    assert result.status == "complete"
    assert result.warnings == ()
    assert (result.metrics["val/loss"].final, result.metrics["val/loss"].best) == (0.6, 0.5)
    assert (result.metrics["val/accuracy"].final, result.metrics["val/accuracy"].best) == (0.80, 0.80)
    assert TrialResult.from_dict(result.to_dict()) == result


def test_thinned_records_keep_validation_and_the_last_step() -> None:
    trial, recorder = make_trial({"name": "constant"}, log_every=15)
    for step in range(1, 41):
        trial.report(step, train_loss=1.0 / step)
    trial.report(40, val_loss=0.5)
    assert [step for step, _ in recorder.points] == [15, 30, 40, 40]


def test_divergence_stops_the_trial_and_every_later_report() -> None:
    trial, recorder = make_trial({"name": "constant"})
    trial.report(1, train_loss=1.0)
    with pytest.raises(StopTrial, match="nan is not finite"):
        trial.report(2, train_loss=float("nan"))
    with pytest.raises(StopTrial):
        trial.report(3, train_loss=1.0)
    assert trial.result().status == "diverged"
    assert [step for step, _ in recorder.points] == [1]


def test_plateau_hears_the_reported_validation() -> None:
    trial, _ = make_trial({"name": "plateau", "patience": 0.01, "factor": 0.5}, steps=4)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=trial.lr)
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for step in range(1, 5):
        parameter.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
        trial.report(step, train_loss=1.0, val_loss=1.0)
    assert optimizer.param_groups[0]["lr"] < trial.lr
    assert trial.result().warnings == ()


@pytest.mark.parametrize("step", [0, -1, 41, True, 1.0])
def test_a_step_that_is_no_count_of_updates_is_refused(step: object) -> None:
    trial, _ = make_trial({"name": "constant"})
    with pytest.raises(InputError, match="step="):
        trial.report(step, train_loss=1.0)  # type: ignore[arg-type]


def test_the_key_of_a_trial_is_that_of_its_training_not_of_its_stage() -> None:
    spec = TrialSpec("coarse", lr=0.1, schedule={"name": "constant"}, seed=0, steps=10)
    same = TrialSpec("confirm", lr=0.1, schedule={"name": "constant"}, seed=0, steps=10, log_every=5)
    other = TrialSpec("coarse", lr=0.1, schedule={"name": "constant"}, seed=1, steps=10)
    assert spec.key == same.key != other.key
    assert TrialSpec.from_dict(spec.to_dict()) == spec
