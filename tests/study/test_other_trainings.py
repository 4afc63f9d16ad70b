"""Trainings as strangers bring them: what is wrong is said, and the answer is right all the same."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lrsearch
from lrsearch import InputError, StopTrial, Task, Trial
from lrsearch.core.trial import TrialSpec
from lrsearch.training.run_trial import run_trial
from tests.study.tasks import study
from tests.training.tasks import (
    CPU,
    INPUTS,
    TARGETS,
    Listener,
    accuracy,
    make_spec,
    run,
    sgd,
    small_task,
)

BATCHES = [(INPUTS[k : k + 8], TARGETS[k : k + 8]) for k in range(0, 64, 8)]
GOOD = (0.1, 100.0)
"""Where the edge of `small_task` lies, whatever happens to a batch of it."""


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))


def spoiled(kind: str) -> list[tuple[Tensor, Tensor]]:
    """The batches, of which the fourth has a loss that is not finite whatever the weights."""
    inputs, targets = (part.clone() for part in BATCHES[3])
    if kind == "ignored":
        targets[:] = -100
    else:
        inputs[2] = math.nan if kind == "nan" else math.inf
    return [*BATCHES[:3], (inputs, targets), *BATCHES[4:]]


def sweep(task: Any, **changed: Any) -> Any:
    return lrsearch.range_test(task, **{"steps": 120, "tracking": False, "progress": False, **changed})


# --- a bad batch is no edge -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [lambda: nn.Linear(4, 2), net], ids=["linear", "batch norm"])
@pytest.mark.parametrize("kind", ["ignored", "nan", "inf"])
def test_a_bad_batch_is_passed_over_in_a_sweep_and_named(kind: str, model: Any) -> None:
    task = small_task(model=model, train_loader=spoiled(kind))
    found = sweep(task)
    good = sweep(replace(task, train_loader=BATCHES))
    assert "passed over, the first at step 4 (batch 4 of its epoch)" in found.suggestion.reason
    assert found.curves[0].steps == pytest.approx(good.curves[0].steps, abs=25)
    assert found.curves[0].steps > 80


@pytest.mark.parametrize("kind", ["ignored", "nan"])
def test_a_bad_batch_is_passed_over_in_a_model_in_use_which_is_put_back(kind: str) -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = lrsearch.range_test(
        model, optimizer, nn.CrossEntropyLoss(), spoiled(kind), steps=120, tracking=False, progress=False
    )
    assert found.curves[0].steps > 80
    assert "passed over" in found.suggestion.reason
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_infinite_loss_that_the_untrained_model_does_not_have_is_the_edge() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - 1).pow(2).mean()

    found = sweep(small_task(loss=loss), max_lr=1e10, stop="none")
    assert found.curves[0].stop_reason == "not_finite"
    assert "passed over" not in found.suggestion.reason


@pytest.mark.parametrize("model", [lambda: nn.Linear(4, 2), net], ids=["linear", "batch norm"])
@pytest.mark.parametrize("kind", ["ignored", "nan"])
def test_a_trial_survives_a_bad_batch_and_names_it(kind: str, model: Any) -> None:
    task = small_task(model=model, train_loader=spoiled(kind))
    spoilt, _ = run(task, make_spec(steps=80))
    clean, _ = run(replace(task, train_loader=BATCHES), make_spec(steps=80))
    assert spoilt.status == "complete"
    assert "batch 4 of its epoch" in (spoilt.bad_data or "")
    assert clean.bad_data is None
    assert spoilt.metrics["val/loss"].final == pytest.approx(clean.metrics["val/loss"].final, rel=0.3)


def test_a_study_warns_of_bad_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("LRSEARCH_HOME", str(tmp_path))
    found = study(small_task(train_loader=spoiled("nan")), "bad", epochs=13)
    assert "passed over" in found.warnings["bad_data"]
    assert found.lr > 0.01


def own_loop(bad_at: int, gone_from: int = 10**9) -> Any:
    def train(trial: Trial) -> None:
        model = nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=trial.lr)
        scheduler = trial.schedule.build(optimizer, trial.steps)
        for step in range(1, trial.steps + 1):
            inputs, targets = BATCHES[step % 8]
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            lost = step == bad_at or step >= gone_from
            trial.report(step, train_loss=math.nan if lost else loss)
        with torch.no_grad():
            trial.report(trial.steps, val_loss=nn.functional.cross_entropy(model(INPUTS), TARGETS))

    return train


def test_one_loss_that_is_not_finite_ends_no_loop_of_ones_own() -> None:
    result, _ = run(own_loop(bad_at=7), make_spec(steps=60))
    assert (result.status, result.steps_done) == ("complete", 60)
    assert "the first at step 7" in (result.bad_data or "")
    found = sweep(own_loop(bad_at=7))
    assert found.curves[0].steps > 80
    planned = np.geomspace(1e-7, 10, 120)
    np.testing.assert_allclose(found.curves[0].lrs, np.delete(planned, 6), rtol=1e-9)
    assert "the first at step 7" in found.suggestion.reason


@pytest.mark.parametrize("gone_from", [30, 60])
def test_losses_that_stay_not_finite_end_it(gone_from: int) -> None:
    result, _ = run(own_loop(0, gone_from), make_spec(steps=60))
    assert (result.status, result.cause) == ("diverged", "not_finite")


# --- what raises as the numbers fail ----------------------------------------------------------------------


class Decomposed(nn.Module):
    """A layer that takes its weights apart, which fails once they are not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.diag(torch.tensor([0.5, 0.8, 1.1, 1.4])))
        self.last = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(self.weight @ self.weight.T + torch.eye(4))
        return self.last(inputs @ vectors @ torch.diag(values) @ self.weight)  # type: ignore[no-any-return]


def sampled(outputs: Tensor, targets: Tensor) -> Tensor:
    """A distribution checks what it is given."""
    found = torch.distributions.Categorical(logits=outputs)
    likelihood: Tensor = found.log_prob(targets)  # type: ignore[no-untyped-call]
    return outputs.pow(4).mean() - likelihood.mean()


def checked(outputs: Tensor, targets: Tensor) -> Tensor:
    loss = nn.functional.cross_entropy(outputs, targets) + outputs.pow(4).mean()
    if loss > 1e6:
        raise RuntimeError("training went to NaN")
    return loss


RAISING: dict[str, Any] = {
    "eigh": lambda: small_task(model=Decomposed, loss=lambda o, t: o.pow(2).mean() - o[:, 0].mean()),
    "distribution": lambda: small_task(loss=sampled),
    "own check": lambda: small_task(loss=checked),
}


@pytest.mark.parametrize("kind", RAISING)
def test_what_a_diverging_training_raises_is_its_divergence(kind: str) -> None:
    result, _ = run(RAISING[kind](), make_spec(lr=1e4, steps=60))
    assert result.status == "diverged"
    assert result.cause in ("raised", "not_finite")
    if result.cause == "raised":
        assert "Error" in (result.error or "")


@pytest.mark.parametrize("kind", RAISING)
def test_a_sweep_ends_where_the_training_raises(kind: str) -> None:
    found = sweep(RAISING[kind](), max_lr=1e5, stop="none")
    assert found.curves[0].stop_reason in ("raised", "not_finite")
    assert found.suggestion.bracket is None or found.suggestion.bracket.high is not None


def test_the_sweep_says_what_was_raised() -> None:
    found = sweep(small_task(loss=checked), max_lr=1e5, stop="none")
    assert found.curves[0].stop_reason == "raised"
    assert "it raised RuntimeError: training went to NaN" in found.suggestion.reason


def test_what_the_untrained_model_raises_too_is_the_users_error() -> None:
    odd = [*BATCHES[:3], (INPUTS[:8], TARGETS[:8] + 7), *BATCHES[4:]]
    result, _ = run(small_task(train_loader=odd), make_spec(lr=1e-3))
    assert (result.status, result.cause) == ("failed", "IndexError")

    def needs_small(outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.sum() == BATCHES[3][1].sum() and len(targets) == 8 and targets.equal(BATCHES[3][1]):
            raise ValueError("no such batch")
        return nn.functional.cross_entropy(outputs, targets)

    result, _ = run(
        small_task(loss=needs_small, train_loader=BATCHES, val_loader=None), make_spec(lr=1e-3), "train/loss"
    )
    assert (result.status, result.cause) == ("failed", "ValueError")


def test_a_loop_of_ones_own_that_raises_on_nan_has_diverged() -> None:
    def train(trial: Trial) -> None:
        for step in range(1, 20):
            trial.report(step, train_loss=1.0, val_loss=1.0)
        raise RuntimeError("loss is NaN, stopping")

    result, _ = run(train, make_spec(steps=60))
    assert (result.status, result.cause) == ("diverged", "raised")
    assert "loss is NaN" in (result.error or "")


# --- a training loss that may rise ------------------------------------------------------------------------


class Warming(nn.Module):
    """A loss whose second part is turned on as the training goes on, as a VAE's divergence is."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        plain = nn.functional.cross_entropy(outputs, targets)
        if not self.training:
            return plain
        self.seen += 1
        return plain + self.seen * (1 + 0 * outputs.sum())


def growing() -> list[tuple[Tensor, Tensor]]:
    """A series that grows: the training loss rises, however good the model is."""
    rows = torch.linspace(1, 30, 160)[:, None] * (1 + 0.01 * INPUTS[:1, :1])
    return [(rows[k : k + 8] / 30, rows[k : k + 8] ** 2) for k in range(0, 160, 8)]


def series(**changed: Any) -> Task:
    data = growing()
    return Task(
        **{
            "model": lambda: nn.Linear(1, 1),
            "optimizer": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
            "loss": nn.MSELoss(),
            "train_loader": data,
            "val_loader": data,
            **changed,
        }
    )


@pytest.mark.parametrize(
    ("task", "spec"),
    [
        (lambda: small_task(loss=Warming()), make_spec(lr=0.1, steps=200)),
        (series, make_spec(lr=0.1, steps=400)),
    ],
    ids=["a loss that is warmed up", "a series that grows"],
)
def test_a_training_loss_that_rises_is_no_divergence_where_the_objective_is_better(
    task: Any, spec: TrialSpec
) -> None:
    result, _ = run(task(), spec)
    assert result.status == "complete"
    assert result.metrics["train/loss"].final > result.metrics["train/loss"].first
    assert result.metrics["val/loss"].final < (result.metrics["val/loss"].untrained or 0)


def test_the_divergence_of_the_plan_decides() -> None:
    task = small_task(loss=Warming())
    spec = make_spec(lr=0.1, steps=200)
    assert run(task, spec, divergence="loss_rose")[0].status == "diverged"
    noise = DataLoader(TensorDataset(INPUTS, torch.randint(2, (64,))), batch_size=8)
    hopeless, far = small_task(train_loader=noise, val_loader=noise), make_spec(lr=1e3, steps=200)
    assert run(hopeless, far, divergence="not_finite")[0].status == "complete"
    assert run(hopeless, far)[0].status == "diverged"


def test_a_study_of_a_loss_that_rises_finds_its_lr(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("LRSEARCH_HOME", str(tmp_path))
    found = study(small_task(loss=Warming()), "warming", epochs=25)
    assert found.lr > 0.02
    assert found.answer.objective < 0.45


def test_a_sweep_whose_loss_may_rise_has_its_edge_where_it_is_not_finite() -> None:
    found = sweep(small_task(loss=Warming()), divergence="not_finite", max_lr=1e38)
    assert found.curves[0].stop_reason in ("not_finite", None)


# --- a start that blows up --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_blown_up_start_gives_no_number(seed: int) -> None:
    """Raw prices under SGD: at every lr of the sweep the first update throws the model away."""
    drawn = torch.Generator().manual_seed(seed)
    rows = torch.randn(512, 8, generator=drawn) * 1e3 + 2e4
    prices = rows.sum(1, keepdim=True) * 3 + 4e5
    task = Task(
        model=lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1)),
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        loss=nn.MSELoss(),
        train_loader=DataLoader(TensorDataset(rows, prices), batch_size=32, shuffle=True),
    )
    found = sweep(task, seed=seed)
    assert found.lr is None
    assert "lower min_lr" in found.suggestion.reason


def test_one_batch_far_out_is_no_blow_up() -> None:
    far = [
        (inputs, 1e3 * targets.float()[:, None] if k == 2 else targets.float()[:, None])
        for k, (inputs, targets) in enumerate(BATCHES)
    ]
    task = Task(
        model=lambda: nn.Linear(4, 1),
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        loss=nn.MSELoss(),
        train_loader=far,
    )
    assert sweep(task).curves[0].steps > 60


# --- short trainings --------------------------------------------------------------------------------------


def test_a_short_training_has_a_sweep_of_a_hundred_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("LRSEARCH_HOME", str(tmp_path))
    found = lrsearch.search(
        small_task(), "short", steps=60, plan="quick", progress=False, tracking_uri="http://127.0.0.1:9"
    )
    assert found.config.sweep.steps == 100
    assert found.config.sweep.repeats == 1
    assert 0.3 < found.stages[0].cost <= 100 / 60
    assert "no_bracket" not in found.warnings
    assert 0.03 < found.lr < 30


def test_the_best_value_is_never_the_untrained_models() -> None:
    task = small_task(metrics={"accuracy": accuracy}, optimizer=sgd)
    result, _ = run(task, make_spec(lr=1e3, steps=24), objective="val/loss", divergence="not_finite")
    summary = result.metrics["val/loss"]
    assert summary.untrained == summary.first
    assert summary.low > summary.first


def test_the_listener_hears_of_every_step_but_those_passed_over() -> None:
    heard = Listener()
    run_trial(small_task(train_loader=spoiled("nan")), make_spec(steps=16), CPU, heard, objective="val/loss")
    assert list(heard.column("train/loss")) == list(range(1, 17))


def test_a_validation_that_is_nan_without_training_is_named() -> None:
    spoilt = [(INPUTS[:8] * math.nan, TARGETS[:8]), *BATCHES]
    with pytest.raises(InputError, match="val/loss of the untrained model is NaN"):
        run(small_task(val_loader=spoilt))


def test_what_a_loop_of_ones_own_raises_on_nan_is_said_by_its_sweep() -> None:
    def train(trial: Trial) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=trial.lr)
        scheduler = trial.schedule.build(optimizer, trial.steps)
        for step in range(1, trial.steps + 1):
            if step == 40:
                raise RuntimeError("NaN loss")
            optimizer.step()
            scheduler.step()
            trial.report(step, train_loss=1.0)

    assert "it raised RuntimeError: NaN loss" in sweep(train).suggestion.reason


@pytest.mark.parametrize("last", [1.0, math.nan])
def test_a_loop_of_ones_own_may_raise_when_all_its_updates_are_reported(last: float) -> None:
    def train(trial: Trial) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=trial.lr)
        scheduler = trial.schedule.build(optimizer, trial.steps)
        for step in range(1, trial.steps + 1):
            optimizer.step()
            scheduler.step()
            with contextlib.suppress(StopTrial):
                trial.report(step, train_loss=last if step == trial.steps else 1.0)
        raise RuntimeError("NaN in the evaluation")

    found = sweep(train)
    (curve,) = found.curves
    assert curve.lr_not_finite == pytest.approx(curve.lrs[-1])
