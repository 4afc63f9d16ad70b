"""A training loop of one's own: what a trial hands it, and what is found when it leaves something out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import nn

import lrsearch
from lrsearch.core.trial import MetricSummary, TrialResult, TrialSpec
from lrsearch.errors import InputError, StopTrial
from lrsearch.schedules import schedule_from_dict
from lrsearch.training.trial import Trial
from tests.training.tasks import make_spec, run

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


def train_and_validate(trial: Trial) -> None:
    train(trial)
    trial.report(trial.steps, val_loss=0.5)


class Recorder:
    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        self.points.append((step, dict(metrics)))


def not_finite(step: int, loss: float) -> str | None:
    return None if math.isfinite(loss) else f"the loss {loss} is not finite"


def make_trial(
    schedule: Mapping[str, object], steps: int = 40, lr: float = 0.1, log_every: int = 1
) -> tuple[Trial, Recorder]:
    recorder = Recorder()
    spec = TrialSpec("coarse", lr=lr, schedule=schedule, seed=0, steps=steps, log_every=log_every)
    return Trial(spec, CPU, record=recorder, monitor=not_finite, objective="val/loss"), recorder


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


def makes_the_optimizer_with_another_lr(trial: Trial) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps + 1):
        parameter.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
        trial.report(step, train_loss=1.0)
    trial.report(trial.steps, val_loss=1.0)


def leaves_early(trial: Trial) -> None:
    trial.report(3, train_loss=1.0, val_loss=1.0)


@pytest.mark.parametrize("schedule", ["linear", "plateau"])
def test_an_lr_that_is_not_the_trials_is_said(schedule: str) -> None:
    result, _ = run(makes_the_optimizer_with_another_lr, make_spec(lr=0.1, steps=20, name=schedule))
    assert result.warnings == ("it made its optimizer without reading trial.lr, which is 0.1",)


def made_with(groups: Callable[[float], list[dict[str, object]]]) -> Callable[[Trial], None]:
    """A loop whose optimizer has these param groups."""

    def train(trial: Trial) -> None:
        optimizer = torch.optim.SGD(groups(trial.lr))
        scheduler = trial.schedule.build(optimizer, trial.steps)
        for step in range(1, trial.steps + 1):
            for group in optimizer.param_groups:
                group["params"][0].grad = torch.ones(1)
            optimizer.step()
            scheduler.step()
            trial.report(step, train_loss=1.0)
        trial.report(trial.steps, val_loss=1.0)

    return train


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "plateau"])
@pytest.mark.parametrize(
    "groups",
    [
        lambda lr: [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr / 64}],
        lambda lr: [{"params": [nn.Parameter(torch.zeros(1))], "lr": share * lr} for share in (0.01, 1)],
        lambda lr: [{"params": [nn.Parameter(torch.zeros(1))], "lr": share * lr} for share in (0, 1)],
        lambda lr: [{"params": [nn.Parameter(torch.zeros(1))], "lr": torch.tensor(lr / 3)}],
    ],
    ids=["a 64th", "slow group first", "still group first", "tensor"],
)
def test_a_factor_between_the_trials_lr_and_the_optimizers_is_no_fault(
    groups: Callable[[float], list[dict[str, object]]], schedule: str
) -> None:
    """What is recorded is in units of trial.lr."""
    spec = make_spec(lr=0.1, steps=200, name=schedule)
    result, heard = run(made_with(groups), spec)
    assert result.warnings == ()
    expected = schedule_from_dict(spec.schedule).curve(0.1, 200)
    np.testing.assert_allclose(list(heard.column("lr").values()), expected, rtol=2e-5)


def test_a_loop_that_moves_the_lr_itself_is_told_whatever_its_factor() -> None:
    def moves(trial: Trial) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=trial.lr / 64)
        scheduler = trial.schedule.build(optimizer, trial.steps)
        optimizer.param_groups[0]["lr"] *= 1.01
        optimizer.step()
        scheduler.step()
        trial.report(1, train_loss=1.0, val_loss=1.0)

    result, _ = run(moves, make_spec(lr=0.1, steps=1))
    assert result.warnings == ("at step 1 the lr was 0.101, not the schedule's 0.1",)


def test_a_loop_that_never_reports_has_failed_and_why_is_said() -> None:
    result, _ = run(never_reports)
    assert (result.status, result.cause) == ("failed", "no_objective")
    assert result.error == "val/loss is the objective and was never reported; reported: nothing"
    assert result.warnings == ("it never reported",)


def test_a_loop_that_leaves_early_and_ignores_the_schedule_is_told_so() -> None:
    result, _ = run(leaves_early)
    assert result.status == "complete"
    assert result.warnings == (
        "its last report was of step 3 of 20",
        "it did not build the trial's schedule",
    )


def test_an_own_loop_gives_the_same_numbers_each_time_and_leaves_no_trace() -> None:
    before = torch.get_rng_state()
    first, heard = run(train_and_validate, make_spec(steps=40, name="cosine", seed=2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    again, heard_again = run(train_and_validate, make_spec(steps=40, name="cosine", seed=2))
    assert (first.status, first.warnings, first.steps_done) == ("complete", (), 40)
    assert heard.points == heard_again.points
    assert first.metrics == again.metrics


def test_a_validation_before_the_last_step_does_not_pass_for_the_whole() -> None:
    result, _ = run(train)
    assert (result.status, result.cause) == ("failed", "no_objective")
    assert result.warnings == ()


@pytest.mark.parametrize("swallows", [False, True])
def test_an_own_loop_that_diverges_is_stopped_with_its_cause(swallows: bool) -> None:
    asked = 0

    def diverges(trial: Trial) -> None:
        nonlocal asked
        for step in range(1, trial.steps + 1):
            asked += 1
            try:
                trial.report(step, train_loss=1.0 if step < 30 else float(step), val_loss=1.0)
            except StopTrial as stop:
                if not swallows:
                    raise
                raise RuntimeError("the framework's own error") from stop

    result, _ = run(diverges, make_spec(steps=200))
    assert (result.status, result.cause, result.error) == ("diverged", "loss_rose", None)
    assert result.steps_done == asked == 100  # until half of it the objective may still come round


def test_an_own_loop_whose_first_loss_is_not_finite_has_no_initial_loss() -> None:
    result, _ = run(lambda trial: trial.report(1, train_loss=float("inf")))
    assert (result.status, result.cause, result.initial_loss) == ("diverged", "not_finite", None)


def test_an_own_loop_that_raises_has_failed_with_its_traceback() -> None:
    def raises(trial: Trial) -> None:
        train(trial)
        raise ZeroDivisionError("in my loop")

    result, _ = run(raises)
    assert (result.status, result.cause, result.steps_done) == ("failed", "ZeroDivisionError", 20)
    assert result.error is not None
    assert "in raises\n" in result.error


def test_an_own_loop_has_no_baseline_of_ours() -> None:
    with pytest.raises(InputError, match="optimizer='adam': is the business of your training function"):
        run(train, make_spec(optimizer="adam"))


def test_settings_that_the_own_loop_decides_are_refused() -> None:
    with pytest.raises(InputError, match=r"clip=1\.0: is the business of your training function"):
        lrsearch.range_test(train, clip=1.0, tracking=False)


def test_a_trial_records_the_lr_of_the_very_update_and_summarises_each_metric() -> None:
    trial, recorder = make_trial({"name": "linear"})
    train(trial)
    trial.report(40, val_loss=0.5, val_accuracy=0.75)
    trial.report(40, val_loss=0.6, val_accuracy=0.80)
    lrs = [metrics["lr"] for _, metrics in recorder.points if "lr" in metrics]
    np.testing.assert_allclose(lrs, 0.1 * (1 - np.arange(40) / 40))
    result = trial.result()
    assert result.status == "complete"
    assert result.warnings == ()
    assert result.metrics["val/loss"] == MetricSummary(0.5, 0.6, low=0.5, high=0.6, count=2)
    assert result.metrics["val/accuracy"] == MetricSummary(0.75, 0.8, low=0.75, high=0.8, count=2)
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


@pytest.mark.parametrize("name", ["val_acc@5", "loss%", "val/../x", "val_", "/x", "x" * 251, "a\n"])
def test_a_metric_that_mlflow_would_refuse_is_refused(name: str) -> None:
    trial, recorder = make_trial({"name": "constant"})
    with pytest.raises(InputError, match=r"metric=.*is no name that MLflow takes") as raised:
        trial.report(1, **{name: 1.0})
    assert "\n" not in str(raised.value)
    assert recorder.points == []


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


@pytest.mark.parametrize("holds_back", [False, True], ids=["the update alone", "the schedule too"])
def test_a_guard_that_skips_updates_is_not_off_the_schedule(holds_back: bool) -> None:
    def guarded(trial: Trial) -> None:
        weight = torch.nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([weight], lr=trial.lr)
        scheduler = trial.schedule.build(optimizer, trial.steps)
        for step in range(1, trial.steps + 1):
            skipped = step in (5, 6, 12)
            if not skipped:
                optimizer.step()
            if not (skipped and holds_back):
                scheduler.step()
            trial.report(step, train_loss=1.0)
        trial.report(trial.steps, val_loss=1.0)

    result, _ = run(guarded, make_spec(name="cosine"))
    assert (result.status, result.warnings) == ("complete", ())
