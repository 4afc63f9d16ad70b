"""The range test in Python: curves with known answers, and everything put back afterwards."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from schedulefree import SGDScheduleFree
from torch import Tensor, nn

import lrsearch
from lrsearch import InputError, RangeTest, Task
from lrsearch.core.observer import Observer
from lrsearch.core.suggestion import Suggestion
from lrsearch.examples.digits import task as digits
from lrsearch.report.plots.range_test import file_axes
from tests.training.fingerprints import changes, fingerprint
from tests.training.zoo import CLASSES, FEATURES, ZOO, Setup, build, train


class Point(nn.Module):
    """One parameter, 1 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(()))

    def forward(self) -> Tensor:
        return self.x


BATCHES = [torch.zeros(1)] * 4


def sweep(model: nn.Module, optimizer: Any = None, **arguments: Any) -> RangeTest:
    """A range test that leaves no record, under SGD unless told otherwise."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    return lrsearch.range_test(
        model, optimizer, **{"steps": 60, "tracking": False, "progress": False, **arguments}
    )


def quadratic(curvature: float, offset: float = 0.0) -> Callable[[nn.Module, Tensor], Tensor]:
    """Under SGD this loss, curvature/2 x**2, shrinks below an lr of 2/curvature and explodes above."""
    return lambda model, batch: 0.5 * curvature * model() ** 2 + offset


def scripted(losses: list[float]) -> Callable[[nn.Module, Tensor], Tensor]:
    """A step whose losses are given beforehand, and whose gradient is 0."""
    left = iter(losses)
    return lambda model, batch: model() * 0 + next(left)


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def batches(count: int = 8, rows: int = 16) -> list[tuple[Tensor, Tensor]]:
    """Data that can be learnt: the class is the largest of three features."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, rows, FEATURES, generator=generator)
    return [(x, x[:, :CLASSES].argmax(1)) for x in inputs]


LOSS: Callable[[Tensor, Tensor], Tensor] = nn.CrossEntropyLoss()


# --- known answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("curvature", [0.02, 1.0, 50.0])
@pytest.mark.parametrize("steps", [100, 400])
def test_the_edge_of_a_parabola_is_near_its_critical_lr(curvature: float, steps: int) -> None:
    targets = 0.3 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    result = sweep(
        Point(),
        step=lambda model, batch: 0.5 * curvature * (model() - batch).square().mean(),
        train_loader=list(targets),  # without noise x would shrink to 1e-20, and be long in coming back
        min_lr=1e-4 / curvature,
        max_lr=1e3 / curvature,
        steps=steps,
    )
    assert result.suggestion.verdict in ("ok", "rules_disagree")
    bracket = result.suggestion.bracket
    assert bracket is not None
    assert bracket.high is not None
    assert 1 / curvature < bracket.high < 10 / curvature
    assert result.lr is not None
    assert bracket.low <= result.lr < 2 / curvature


@pytest.mark.parametrize("offset", [-100.0, -0.25, 100.0])
def test_an_offset_of_the_loss_changes_nothing(offset: float) -> None:
    """A loss that is negative, or far from 0, is swept as far and answered the same."""
    plain, moved = (
        sweep(Point(), step=quadratic(1.0, o), train_loader=BATCHES, min_lr=1e-4, max_lr=1e3, steps=200)
        for o in (0.0, offset)
    )
    assert moved.suggestion.verdict == plain.suggestion.verdict
    assert moved.curves[0].stop_reason == "rose"
    assert moved.curves[0].stopped_at == pytest.approx(plain.curves[0].stopped_at, abs=2)
    assert moved.lr == pytest.approx(plain.lr, rel=0.1)


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ([2.0 - 1e-9 * k for k in range(60)], "flat"),
        ([2.0 + 0.05 * k for k in range(60)], "only_rising"),
        ([2.0 - 0.02 * k for k in range(60)], "never_diverged"),
        ([2.0 - 0.1 * k for k in range(12)] + [math.nan] * 48, "too_few_points"),
    ],
)
def test_a_curve_without_an_answer_gets_a_verdict_and_no_number(losses: list[float], verdict: str) -> None:
    result = sweep(Point(), step=scripted(losses), train_loader=BATCHES, stop="none")
    assert (result.suggestion.verdict, result.lr) == (verdict, None)


# --- the learning rates -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing", "formula"),
    [
        ("log", lambda i: 1e-5 * (1e-1 / 1e-5) ** (i / 59)),
        ("linear", lambda i: 1e-5 + (1e-1 - 1e-5) * i / 59),
    ],
)
def test_the_lrs_follow_the_formula(spacing: str, formula: Callable[[int], float]) -> None:
    """Those recorded and those that the optimizer really had, one a step, both ends used."""
    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.7)
    had: list[float] = []

    def step(model: nn.Module, batch: Tensor) -> Tensor:
        had.append(optimizer.param_groups[0]["lr"])
        return quadratic(1.0)(model, batch)

    result = sweep(
        model, optimizer, step=step, train_loader=BATCHES, min_lr=1e-5, max_lr=1e-1, spacing=spacing
    )
    expected = [formula(i) for i in range(60)]
    assert result.curves[0].recorded_lrs.tolist() == pytest.approx(expected, rel=1e-12)
    assert had == pytest.approx(expected, rel=1e-9)


def test_param_groups_keep_their_ratios_throughout() -> None:
    model = classifier()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.004}]
    optimizer = torch.optim.SGD(groups)
    ratios: list[float] = []

    def step(model: nn.Module, batch: Any) -> Tensor:
        first, second = (group["lr"] for group in optimizer.param_groups)
        ratios.append(second / first)
        return LOSS(model(batch[0]), batch[1])

    result = sweep(model, optimizer, step=step, train_loader=batches(), stop="none", max_lr=1e-2)
    assert ratios == pytest.approx([0.04] * 60, rel=1e-9)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.004]
    assert result.curves[0].recorded_lrs[-1] == pytest.approx(1e-2)  # lr is the first group's


def test_the_suggestion_has_the_lr_of_every_group_and_says_whose_is_meant() -> None:
    model = classifier()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.004}]
    arguments = {"loss": LOSS, "train_loader": batches(), "steps": 200, "max_lr": 1e3}
    found = sweep(model, torch.optim.SGD(groups), **arguments)
    assert found.lr is not None
    assert found.suggestion.groups == pytest.approx((found.lr, 0.04 * found.lr))
    assert Suggestion.from_dict(json.loads(json.dumps(found.suggestion.to_dict()))) == found.suggestion
    assert found.to_dict()["groups"] == list(found.suggestion.groups)
    assert f"{found.lr:.3g}, {0.04 * found.lr:.3g}" in found._repr_html_()
    ax = found.plot(file_axes())
    assert ax.get_xlabel() == "learning rate of param group 0"
    assert f"lr {found.lr:.3g}, {0.04 * found.lr:.3g}" in ax.get_title()

    alone = sweep(classifier(), **arguments)
    assert alone.suggestion.groups == (alone.lr,)
    assert alone.plot(file_axes()).get_xlabel() == "learning rate"


Groups = Callable[[list[nn.Parameter], float], list[dict[str, Any]]]


def of_groups(groups: Groups) -> Task:
    """A task of four parameters, whose optimizer has these param groups."""
    return Task(
        model=classifier,
        optimizer=lambda parameters, lr: torch.optim.SGD(groups(list(parameters), lr)),
        loss=LOSS,
        train_loader=batches(),
    )


def slow_first(parameters: list[nn.Parameter], lr: float) -> list[dict[str, Any]]:
    return [{"params": parameters[:2], "lr": 0.01 * lr}, {"params": parameters[2:], "lr": lr}]


def slow_last(parameters: list[nn.Parameter], lr: float) -> list[dict[str, Any]]:
    return slow_first(parameters, lr)[::-1]


def sixty_fourth(parameters: list[nn.Parameter], lr: float) -> list[dict[str, Any]]:
    return [{"params": parameters, "lr": lr / 64}]


def whole(parameters: list[nn.Parameter], lr: float) -> list[dict[str, Any]]:
    return [{"params": parameters, "lr": lr}]


def as_task(groups: Groups) -> Any:
    return of_groups(groups)


def as_own_loop(groups: Groups) -> Any:
    def train(trial: lrsearch.Trial) -> None:
        model = classifier()
        optimizer = torch.optim.SGD(groups(list(model.parameters()), trial.lr))
        scheduler = trial.schedule.build(optimizer, trial.steps)
        for step in range(1, trial.steps + 1):
            inputs, targets = batches()[step % 8]
            loss = LOSS(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            trial.report(step, train_loss=loss.item())

    return train


def in_units(subject: Any, unit: float = 1.0) -> RangeTest:
    return lrsearch.range_test(
        subject, steps=200, min_lr=1e-5 * unit, max_lr=1e3 * unit, tracking=False, progress=False
    )


@pytest.mark.parametrize("made", [as_task, as_own_loop])
def test_the_lr_is_the_one_that_is_handed_over_whatever_group_comes_first(
    made: Callable[[Groups], Any],
) -> None:
    first, last = in_units(made(slow_first)), in_units(made(slow_last))
    assert first.curves == last.curves
    assert first.suggestion == last.suggestion
    assert first.lr is not None
    assert first.suggestion.groups == ()


@pytest.mark.parametrize("made", [as_task, as_own_loop])
def test_an_optimizer_made_with_a_64th_of_the_lr_has_a_bracket_64_times_as_high(
    made: Callable[[Groups], Any],
) -> None:
    found, plain = in_units(made(sixty_fourth), 64).suggestion, in_units(made(whole)).suggestion
    assert found.lr is not None
    assert plain.lr is not None
    assert found.bracket is not None
    assert plain.bracket is not None
    assert found.bracket.high is not None
    assert found.lr == pytest.approx(64 * plain.lr)
    assert found.bracket.high == pytest.approx(64 * (plain.bracket.high or 0))


class Heard(Observer):
    """Keeps what a sweep tells."""

    def __init__(self) -> None:
        self.model_info: dict[str, Any] = {}
        self.lrs: list[float] = []

    def sweep_begins(self, seed: int, steps: int, model_info: Mapping[str, Any]) -> None:
        self.model_info = dict(model_info)

    def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:
        self.lrs.append(lr)


@pytest.mark.parametrize("made", [as_task, as_own_loop])
@pytest.mark.parametrize("groups", [slow_first, sixty_fourth])
def test_what_is_recorded_is_the_curve(made: Callable[[Groups], Any], groups: Groups) -> None:
    heard = Heard()
    result = lrsearch.range_test(made(groups), steps=60, max_lr=1e-2, tracking=False, progress=heard)
    assert heard.lrs == pytest.approx(result.curves[0].recorded_lrs.tolist(), rel=1e-12)
    assert "unscaled_groups" not in heard.model_info


@pytest.mark.parametrize(("own", "power"), [(lambda lr: 0.003, 0.0), (lambda lr: 0.1 * lr**0.5, 0.5)])
@pytest.mark.parametrize("at", [0, 1])
def test_a_group_that_does_not_scale_with_the_lr_is_named_and_has_its_own_in_the_sweep(
    own: Callable[[float], float], power: float, at: int
) -> None:
    """As in the trials: at every lr of the sweep it has what a training at that lr would give it."""
    made: list[torch.optim.Optimizer] = []
    had: list[list[float]] = []

    def optimizer(parameters: Any, lr: float) -> torch.optim.Optimizer:
        weight, bias, *others = parameters
        lrs = [lr, own(lr)] if at == 1 else [own(lr), lr]
        groups = zip(([weight, bias], others), lrs, strict=True)
        made.append(torch.optim.SGD([{"params": params, "lr": of_group} for params, of_group in groups]))
        return made[-1]

    def step(model: nn.Module, batch: Any) -> Tensor:
        had.append([group["lr"] for group in made[-1].param_groups])
        return LOSS(model(batch[0]), batch[1])

    heard = Heard()
    task = Task(classifier, optimizer, batches(), step=step)
    with pytest.warns(UserWarning, match=f"gives param group {at} is not in proportion"):
        result = lrsearch.range_test(
            task, steps=60, max_lr=1e-2, repeats=2, stop="none", tracking=False, progress=heard
        )
    lrs = result.curves[0].recorded_lrs.tolist()
    assert heard.model_info["unscaled_groups"] == [at]
    assert heard.lrs == lrs * 2
    assert [lr[1 - at] for lr in had] == pytest.approx(lrs * 2)
    assert [lr[at] for lr in had] == pytest.approx([own(lr) for lr in lrs * 2])


@pytest.mark.parametrize(
    ("own", "within"),
    [
        (lambda lr: 0.003, 1 + 1e-6),
        (lambda lr: 10 * lr**2, 1 + 1e-6),
        (lambda lr: min(lr, 2e-4), 1.4),
        (lambda lr: max(0.1 * lr, 3e-6), 1.4),
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_a_loop_of_ones_own_is_swept_at_the_lrs_that_it_makes_of_each(
    own: Callable[[float], float], within: float, at: int
) -> None:
    """As in its trials: every group has at every lr what a training at that lr would give it."""
    had: list[list[float]] = []

    def train(trial: lrsearch.Trial) -> None:
        weight, bias, *others = classifier().parameters()
        lrs = [trial.lr, own(trial.lr)] if at == 1 else [own(trial.lr), trial.lr]
        groups = zip(([weight, bias], others), lrs, strict=True)
        optimizer = torch.optim.SGD([{"params": params, "lr": of_group} for params, of_group in groups])
        scheduler = trial.schedule.build(optimizer, trial.steps)
        had.clear()
        for step in range(1, trial.steps + 1):
            had.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
            trial.report(step, train_loss=1.0)

    heard = Heard()
    with pytest.warns(UserWarning, match=f"training function gives param group {at} is not in proportion"):
        result = lrsearch.range_test(
            train, steps=60, max_lr=1e-2, stop="none", tracking=False, progress=heard
        )
    lrs = result.curves[0].recorded_lrs.tolist()
    assert heard.lrs == lrs
    assert [lr[1 - at] for lr in had] == pytest.approx(lrs, rel=1e-6)
    ratios = [lr[at] / own(asked) for lr, asked in zip(had, lrs, strict=True)]
    assert 1 / within <= min(ratios) <= max(ratios) <= within


def test_a_capped_loop_of_ones_own_has_the_bracket_of_the_task_that_is_capped_alike() -> None:
    def capped(parameters: list[nn.Parameter], lr: float) -> list[dict[str, Any]]:
        return [{"params": parameters, "lr": 30 * lr**2}]

    with pytest.warns(UserWarning, match="not in proportion"):
        task, loop = in_units(as_task(capped)).suggestion, in_units(as_own_loop(capped)).suggestion
    plain = in_units(as_task(whole)).suggestion
    assert None not in (task.bracket, loop.bracket, plain.bracket)
    assert loop.bracket.high == pytest.approx(task.bracket.high, rel=0.3)  # type: ignore[union-attr]
    assert 30 * loop.bracket.high**2 == pytest.approx(plain.bracket.high, rel=0.5)  # type: ignore[union-attr]


def test_a_loop_of_ones_own_that_ignores_its_lr_is_refused_before_it_trains() -> None:
    stepped: list[float] = []

    def train(trial: lrsearch.Trial) -> None:
        optimizer = torch.optim.SGD(classifier().parameters(), lr=0.01 + 0 * trial.lr)
        scheduler = trial.schedule.build(optimizer, trial.steps)
        optimizer.step()
        stepped.append(trial.lr)
        scheduler.step()

    with pytest.raises(
        InputError, match=r"train=.*same lr at every trial\.lr: 0\.01; make it with trial\.lr"
    ):
        in_units(train)
    assert stepped == []


def test_an_optimizer_that_ignores_its_lr_is_refused() -> None:
    task = of_groups(lambda parameters, lr: [{"params": parameters, "lr": 0.01}])
    with pytest.raises(InputError, match=r"Task\.optimizer=.*ignores the lr that it is given.*always 0\.01"):
        in_units(task)


def test_to_look_at_an_optimizer_changes_no_random_number() -> None:
    def optimizer(parameters: Any, lr: float) -> torch.optim.Optimizer:
        torch.rand(3)
        return torch.optim.SGD(parameters, lr=lr)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    in_units(Task(dropout_net, optimizer, batches(), loss=LOSS))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_an_lr_held_in_a_tensor_is_swept_and_put_back_in_place(kind: Any) -> None:
    model, lr = classifier(), torch.tensor(0.1)
    optimizer = kind([{"params": model[0].parameters()}, {"params": model[2].parameters()}], lr=lr)
    tensors = [group["lr"] for group in optimizer.param_groups]
    had: list[list[float]] = []

    def step(model: nn.Module, batch: Any) -> Tensor:
        had.append([float(group["lr"]) for group in optimizer.param_groups])
        return LOSS(model(batch[0]), batch[1])

    result = sweep(model, optimizer, step=step, train_loader=batches(), max_lr=1e-2, stop="none")
    lrs = result.curves[0].recorded_lrs.tolist()
    assert had == [pytest.approx([lr, lr], rel=1e-6) for lr in lrs]
    assert result.curves[0].losses[-1] < result.curves[0].losses[0]
    assert all(group["lr"] is was for group, was in zip(optimizer.param_groups, tensors, strict=True))
    assert (
        [group["lr"].item() for group in optimizer.param_groups]
        == [lr.item()] * 2
        == [pytest.approx(0.1)] * 2
    )


@pytest.mark.parametrize(
    ("loaded", "accumulate", "steps"),
    [(5, 1, 100), (250, 1, 250), (250, 2, 125), (1500, 1, 1000), (3000, 2, 1000)],
)
def test_the_default_is_one_epoch_of_updates_within_100_and_1000(
    loaded: int, accumulate: int, steps: int
) -> None:
    result = sweep(
        Point(),
        step=quadratic(1e-9),
        train_loader=[torch.zeros(1)] * loaded,
        steps=None,
        stop="none",
        accumulate=accumulate,
    )
    assert result.steps == steps


class Endless:
    """An iterable without a length."""

    def __iter__(self) -> Any:
        return iter(BATCHES)


def test_the_default_is_300_where_the_epoch_has_no_length() -> None:
    result = sweep(Point(), step=quadratic(1e-9), train_loader=Endless(), steps=None, stop="none")
    assert result.steps == 300


# --- when it stops ----------------------------------------------------------------------------------------

VALLEY = [2.0 - 0.05 * k for k in range(30)] + [0.5 + 0.4 * k for k in range(30)]


@pytest.mark.parametrize(
    ("stop", "reason", "earliest", "latest"),
    [("none", None, 60, 60), ("auto", "rose", 38, 50), ("4x", "4x", 35, 60)],
)
def test_stop_rules(stop: str, reason: str | None, earliest: int, latest: int) -> None:
    """In auto the loss, 2 at first and 0.5 at its lowest, has regained its fall twice: it is at 3.5."""
    result = sweep(Point(), step=scripted(VALLEY), train_loader=BATCHES, stop=stop, smoothing=0.5)
    (curve,) = result.curves
    assert curve.stop_reason == reason
    assert earliest <= curve.steps <= latest
    assert curve.stopped_at == (curve.steps if reason else None)


def test_the_classic_rule_stops_at_four_times_the_smoothed_minimum() -> None:
    result = sweep(Point(), step=scripted(VALLEY), train_loader=BATCHES, stop="4x", smoothing=0.5)
    average, lowest = 0.0, math.inf
    for i, loss in enumerate(VALLEY, start=1):
        average = 0.5 * average + 0.5 * loss
        smoothed = average / (1 - 0.5**i)
        if smoothed > 4 * lowest:
            break
        lowest = min(lowest, smoothed)
    assert result.curves[0].stopped_at == i


@pytest.mark.parametrize("stop", ["auto", "4x", "none"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_record_before_it(stop: str, bad: float) -> None:
    losses = VALLEY[:30] + [0.5] * 10 + [bad] + [0.5] * 19
    result = sweep(Point(), step=scripted(losses), train_loader=BATCHES, stop=stop)
    (curve,) = result.curves
    assert curve.losses.tolist() == pytest.approx(losses[:40], rel=1e-6)
    assert (curve.stopped_at, curve.stop_reason) == (41, "not_finite")
    bracket = result.suggestion.bracket
    assert bracket is not None
    assert bracket.high == pytest.approx(float(curve.lrs[40]))
    assert result.lr is not None


def test_nan_at_the_second_step_is_no_input_error() -> None:
    result = sweep(Point(), step=scripted([1.0] + [math.nan] * 50), train_loader=BATCHES)
    assert (result.suggestion.verdict, result.steps, result.curves[0].stopped_at) == ("too_few_points", 1, 2)


# --- what a step can be -----------------------------------------------------------------------------------


def bare_losses(update: Callable[[nn.Sequential, torch.optim.Optimizer, int], float], steps: int = 60) -> Any:
    """The same sweep written by hand: log spacing from 1e-4 to 1e-1, plain SGD."""
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    losses = []
    for i in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-4 * 1e3 ** (i / (steps - 1))
        optimizer.zero_grad()
        losses.append(update(model, optimizer, i))
    return pytest.approx(losses, rel=1e-4)


def ours(**arguments: Any) -> list[float]:
    standard = {"loss": LOSS, "train_loader": batches(), "min_lr": 1e-4, "max_lr": 1e-1}
    return [float(loss) for loss in sweep(classifier(), **standard | arguments).curves[0].losses]


def test_a_plain_sweep_is_a_plain_training() -> None:
    """The loader of eight batches starts again at its end."""

    def update(model: nn.Sequential, optimizer: torch.optim.Optimizer, i: int) -> float:
        inputs, targets = batches()[i % 8]
        loss = LOSS(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    assert ours() == bare_losses(update)


def test_accumulated_batches_make_one_update_with_their_mean() -> None:
    def update(model: nn.Sequential, optimizer: torch.optim.Optimizer, i: int) -> float:
        drawn = [batches()[(3 * i + k) % 8] for k in range(3)]
        loss: Tensor = torch.stack([LOSS(model(inputs), targets) for inputs, targets in drawn]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    assert ours(accumulate=3) == bare_losses(update)


def test_clipping_limits_the_norm_of_the_gradient() -> None:
    def update(model: nn.Sequential, optimizer: torch.optim.Optimizer, i: int) -> float:
        inputs, targets = batches()[i % 8]
        loss = LOSS(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
        for p in model.parameters():
            assert p.grad is not None
            p.grad *= min(1.0, 0.05 / norm)
        optimizer.step()
        return loss.item()

    clipped = ours(clip=0.05)
    assert clipped == bare_losses(update)
    assert clipped != pytest.approx(ours(), rel=1e-4)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("16", torch.float16)])
def test_autocast_sweeps_in_half_precision(precision: str, dtype: torch.dtype) -> None:
    seen: set[torch.dtype] = set()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.add(outputs.dtype)
        return LOSS(outputs.float(), targets)

    assert ours(loss=loss, precision=precision) == pytest.approx(ours(), rel=0.05)
    assert seen == {dtype}


def test_clipping_under_a_scaler_sees_the_unscaled_gradient() -> None:
    assert ours(precision="16", clip=0.05) == pytest.approx(ours(clip=0.05), rel=0.02)


def test_lbfgs_takes_its_closure() -> None:
    model = classifier()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    inputs, targets = batches()[0]
    (curve,) = sweep(model, optimizer, loss=LOSS, train_loader=[(inputs, targets)] * 2, min_lr=1e-4).curves
    assert curve.losses[0] == pytest.approx(LOSS(model(inputs), targets).item())
    assert curve.losses.min() < 0.7 * curve.losses[0]


def test_a_line_search_that_leaves_the_first_step_is_divergence_and_no_input_error() -> None:
    evaluations = 0

    def step(model: nn.Module, batch: Tensor) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return quadratic(1.0)(model, batch) * (math.nan if evaluations in (2, 3) else 1.0)

    model = Point()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    result = sweep(model, optimizer, step=step, train_loader=BATCHES)
    assert result.steps >= 1


class Named(nn.Module):
    """Takes its inputs by name, as models of language do; returns an object that has the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body = classifier()

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> Any:
        outputs = self.body(pixels)
        return outputs if labels is None else SimpleNamespace(loss=LOSS(outputs, labels))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"loss": None}, id="model that returns the loss"),
        pytest.param({"loss": LOSS}, id="target by its name"),
        pytest.param(
            {"loss": None, "step": lambda model, batch: LOSS(model.body(batch["pixels"]), batch["labels"])},
            id="step",
        ),
    ],
)
def test_batches_that_are_dicts(arguments: dict[str, Any]) -> None:
    loader = [{"pixels": inputs, "labels": targets} for inputs, targets in batches()]
    result = sweep(Named(), train_loader=loader, min_lr=1e-4, max_lr=1e-1, **arguments)
    assert result.curves[0].losses.tolist() == pytest.approx(ours(), rel=1e-6)


def test_a_loss_with_parameters_of_its_own_is_trained_and_put_back() -> None:
    class Distance(nn.Linear):
        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:  # type: ignore[override]
            return nn.functional.mse_loss(super().forward(outputs)[:, 0], targets.float())

    model, criterion = classifier(), Distance(CLASSES, 1)
    before = [p.detach().clone() for p in criterion.parameters()]
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.1)
    result = sweep(model, optimizer, loss=criterion, train_loader=batches(), max_lr=1e-2)
    assert result.curves[0].losses[-1] < result.curves[0].losses[0]
    assert all(torch.equal(a, b) for a, b in zip(before, criterion.parameters(), strict=True))


# --- seeds ------------------------------------------------------------------------------------------------


def shuffled() -> Any:
    data = torch.utils.data.TensorDataset(*(torch.cat(part) for part in zip(*batches(), strict=True)))
    return torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)


def dropout_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, CLASSES))


def a_task() -> Task:
    return Task(
        model=dropout_net,
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        loss=LOSS,
        train_loader=shuffled(),
    )


def with_parts(**arguments: Any) -> RangeTest:
    torch.manual_seed(7)
    return sweep(dropout_net(), loss=LOSS, train_loader=shuffled(), **arguments)


def with_task(**arguments: Any) -> RangeTest:
    return lrsearch.range_test(a_task(), **{"steps": 60, "tracking": False, "progress": False, **arguments})


KINDS = pytest.mark.parametrize("run", [with_parts, with_task])


@KINDS
def test_the_same_seed_gives_the_same_bits(run: Callable[..., RangeTest]) -> None:
    first = run(seed=3)
    torch.rand(5)  # whatever happened in between
    assert np.array_equal(first.curves[0].losses, run(seed=3).curves[0].losses)


@KINDS
def test_another_seed_gives_another_curve(run: Callable[..., RangeTest]) -> None:
    assert not np.array_equal(run(seed=3).curves[0].losses[:20], run(seed=4).curves[0].losses[:20])


@KINDS
def test_repeats_are_the_single_runs_of_their_seeds(run: Callable[..., RangeTest]) -> None:
    repeated = run(seed=3, repeats=3)
    singles = [run(seed=seed).curves[0] for seed in (3, 4, 5)]
    assert list(repeated.curves) == singles


@pytest.mark.parametrize(("run", "varies"), [(with_parts, False), (with_task, True)])
def test_a_task_varies_the_initial_weights_and_a_model_does_not(
    run: Callable[..., RangeTest], varies: bool
) -> None:
    torch.manual_seed(0)
    first_weights: list[float] = []

    def step(model: nn.Module, batch: Any) -> Tensor:
        first_weights.append(float(next(model.parameters()).detach().sum()))
        return LOSS(model(batch[0]), batch[1])

    if varies:
        task = a_task()
        stepping = Task(task.model, task.optimizer, task.train_loader, step=step)
        lrsearch.range_test(stepping, steps=10, repeats=2, tracking=False, progress=False)
    else:
        sweep(dropout_net(), step=step, train_loader=shuffled(), steps=10, repeats=2)
    assert (first_weights[0] != first_weights[10]) == varies


def test_seeds_differ_where_the_epoch_alone_decides_the_order() -> None:
    setup = build("loader with epochs")
    result = sweep_setup(setup, seed=3, repeats=2)
    first, second = result.curves
    assert not np.array_equal(first.losses[:20], second.losses[:20])
    assert sweep_setup(setup, seed=4).curves[0] == second


def test_one_full_batch_is_a_loader() -> None:
    result = sweep(classifier(), loss=LOSS, train_loader=batches(1), steps=100, max_lr=100.0)
    same = sweep(classifier(), loss=LOSS, train_loader=batches(1) * 2, steps=100, max_lr=100.0)
    assert result.curves == same.curves


def test_the_spread_of_the_seeds_is_told() -> None:
    result = with_task(repeats=3, steps=200)
    assert result.suggestion.spread is not None
    low, high = result.suggestion.spread
    assert result.lr is not None
    assert low <= result.lr <= high
    assert result.to_frame().groupby("seed").size().tolist() == [curve.steps for curve in result.curves]


# --- put back ---------------------------------------------------------------------------------------------


class LoaderError(Exception):
    """What a loader of the user's may raise."""


def fine(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs.float(), targets)


def sweep_setup(setup: Setup, loss: Callable[[Tensor, Tensor], Tensor] = fine, **arguments: Any) -> RangeTest:
    return sweep(
        setup.model,
        setup.optimizer,
        loss=loss,
        train_loader=setup.loader,
        **{"steps": 20, "precision": "bf16" if setup.scaler else "32", **arguments},
    )


def failing(error: BaseException, after: int = 7) -> Callable[[Tensor, Tensor], Tensor]:
    calls = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > after:
            raise error
        return fine(outputs, targets)

    return loss


def turning_nan(outputs: Tensor, targets: Tensor, counts: list[int]) -> Tensor:
    counts.append(1)
    return fine(outputs, targets) * (math.nan if len(counts) > 9 else 1.0)


@pytest.mark.parametrize("kind", ZOO)
def test_everything_is_as_it_was(kind: str) -> None:
    setup = build(kind, trained=2)
    before = fingerprint(setup)
    result = sweep_setup(setup, max_lr=1.0)
    assert changes(before, fingerprint(setup)) == []
    assert len(set(result.curves[0].losses.tolist())) > 5  # it did train


@pytest.mark.parametrize("kind", ZOO)
def test_everything_is_as_it_was_after_a_divergence(kind: str) -> None:
    setup = build(kind)
    before = fingerprint(setup)
    counts: list[int] = []
    result = sweep_setup(setup, lambda outputs, targets: turning_nan(outputs, targets, counts), stop="none")
    assert result.curves[0].stop_reason == "not_finite"
    assert changes(before, fingerprint(setup)) == []


@pytest.mark.parametrize("error", [LoaderError("no disk"), KeyboardInterrupt()], ids=["exception", "ctrl-c"])
@pytest.mark.parametrize("kind", ZOO)
def test_everything_is_as_it_was_after_an_error_in_mid_sweep(kind: str, error: BaseException) -> None:
    setup = build(kind, trained=2)
    before = fingerprint(setup)
    with pytest.raises(type(error)) as caught:
        sweep_setup(setup, failing(error))
    assert caught.value is error
    assert "range test" in error.__notes__[-1]
    assert changes(before, fingerprint(setup)) == []


@pytest.mark.parametrize("kind", ["BatchNorm", "LBFGS", "data set with random numbers"])
@pytest.mark.parametrize("keep", ["cpu", "disk"])
def test_everything_is_as_it_was_wherever_the_copy_lies(kind: str, keep: str) -> None:
    setup = build(kind, trained=2)
    before = fingerprint(setup)
    sweep_setup(setup, keep=keep)
    assert changes(before, fingerprint(setup)) == []


def test_the_error_says_where_it_happened() -> None:
    setup = build("Adam")
    error = LoaderError("no disk")
    with pytest.raises(LoaderError):
        sweep_setup(setup, failing(error), seed=5)
    assert error.__notes__ == ["in the range test, after 7 steps with seed 5"]


@pytest.mark.parametrize("kind", ZOO)
def test_a_second_range_test_gives_the_very_same_curve(kind: str) -> None:
    setup = build(kind, trained=2)
    assert sweep_setup(setup).curves == sweep_setup(setup).curves


@pytest.mark.parametrize("kind", ZOO)
def test_the_training_that_follows_is_undisturbed(kind: str) -> None:
    disturbed, undisturbed = build(kind, trained=2), build(kind, trained=2)
    sweep_setup(disturbed)
    random_state = torch.get_rng_state()
    after = train(disturbed, 3)
    undisturbed = build(kind, trained=2)
    assert torch.equal(random_state, torch.get_rng_state())
    assert after == train(undisturbed, 3)


def test_a_scheduler_can_be_attached_afterwards() -> None:
    setup = build("SGD, momentum")
    sweep_setup(setup)
    scheduler = torch.optim.lr_scheduler.StepLR(setup.optimizer, 1, gamma=0.5)
    train(setup, 2, scheduler)
    assert scheduler.get_last_lr() == [pytest.approx(0.1 * 0.25)]


def test_frozen_batch_norm_stays_frozen_and_a_model_in_eval_mode_is_trained() -> None:
    """What is in eval mode within a model in train mode is meant so; a whole model in eval mode is not."""
    modes: list[list[bool]] = []

    def step(model: nn.Module, batch: Any) -> Tensor:
        modes.append([module.training for module in model.modules()])
        return LOSS(model(batch[0]), batch[1])

    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))
    model[1].eval()
    sweep(model, step=step, train_loader=batches())
    assert modes[0] == [True, True, False, True]
    sweep(model.eval(), step=step, train_loader=batches())
    assert modes[-1] == [True, True, True, True]
    assert not model.training


def test_a_schedule_free_optimizer_in_eval_mode_is_swept_and_left_in_it() -> None:
    """Its weights are then the averages; a sweep goes on from those it trains, as a training would."""
    setup = build("schedule-free", trained=3)
    in_train_mode = sweep_setup(setup).curves
    setup.optimizer.eval()  # type: ignore[attr-defined]
    before = fingerprint(setup)
    in_eval_mode = sweep_setup(setup).curves
    assert changes(before, fingerprint(setup)) == []
    assert not setup.optimizer.param_groups[0]["train_mode"]
    assert in_eval_mode[0].losses == pytest.approx(in_train_mode[0].losses, rel=1e-4)


def test_a_schedule_free_optimizer_that_nobody_has_switched_on_is_swept() -> None:
    task = replace(a_task(), optimizer=lambda parameters, lr: SGDScheduleFree(parameters, lr=lr))
    result = lrsearch.range_test(task, steps=60, tracking=False, progress=False)
    assert result.curves[0].losses.min() < result.curves[0].losses[0]


def test_a_generator_is_swept_once_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="generator.*cannot be put back"):
        result = sweep(classifier(), loss=LOSS, train_loader=iter_forever(80), max_lr=1e-2, stop="none")
    assert result.steps == 60


def iter_forever(count: int) -> Any:
    return (batches()[i % 8] for i in range(count))


@pytest.mark.filterwarnings("ignore:train_loader is a generator:UserWarning")
def test_a_generator_that_is_too_short_says_so_and_the_model_is_put_back() -> None:
    model = classifier()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(lrsearch.InputError, match="ended after 30 batches of the 60") as caught:
        sweep(model, loss=LOSS, train_loader=iter_forever(30), stop="none")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


# --- without a record -------------------------------------------------------------------------------------


def test_without_tracking_nothing_is_written(tmp_path: Any) -> None:
    result = with_task()
    assert list(tmp_path.rglob("*")) == []
    assert (result.folder, result.run_id, result.tracking) == (None, None, "off")


def test_a_function_that_makes_the_task_is_taken_for_the_task() -> None:
    def digits_task(batch_size: int = 64) -> lrsearch.Task:
        return digits(batch_size=batch_size)

    by_function = lrsearch.range_test(digits_task, tracking=False, progress=False)
    by_task = lrsearch.range_test(digits_task(), tracking=False, progress=False)
    assert by_function.curves == by_task.curves
    with pytest.raises(InputError, match=r"returned an int when it was called .*; return an lrsearch\.Task"):
        lrsearch.range_test(lambda: 1, tracking=False)  # type: ignore[arg-type]


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """As by a decorator without functools.wraps: nobody sees any more what the function takes."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_a_decorator_hides_neither_a_training_function_nor_a_tasks() -> None:
    train = as_own_loop(slow_first)
    assert in_units(decorated(train)).curves == in_units(train).curves
    assert in_units(decorated(lambda *given: train(given[0]))).curves == in_units(train).curves
    assert in_units(decorated(a_task)).curves == in_units(a_task).curves


def test_what_a_decorated_function_raises_or_returns_is_not_taken_for_a_missing_trial() -> None:
    def broken() -> Task:
        raise TypeError("unsupported operand")

    with pytest.raises(TypeError, match="unsupported operand"):
        in_units(decorated(broken))
    with pytest.raises(InputError, match=r"returned an int when it was called .*; return an lrsearch\.Task"):
        in_units(decorated(lambda: 1))


FACTORIES: dict[str, Callable[[float], float]] = {
    "floor": lambda lr: max(lr, 1e-3),
    "cap": lambda lr: min(lr, 1e-2),
    "offset": lambda lr: lr + 1e-3,
    "square root": lambda lr: lr**0.5,
}


@pytest.mark.parametrize("kind", FACTORIES)
def test_a_sweep_trains_at_the_lr_that_the_factory_makes_of_each(kind: str) -> None:
    had: list[float] = []

    class Noted(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            had.append(self.param_groups[0]["lr"])
            return super().step(closure)

    task = Task(classifier, lambda parameters, lr: Noted(parameters, lr=FACTORIES[kind](lr)), batches(), LOSS)
    with pytest.warns(UserWarning, match="gives param group 0 is not in proportion"):
        found = lrsearch.range_test(task, steps=60, tracking=False, progress=False, stop="none")
    expected = [FACTORIES[kind](lr) for lr in np.geomspace(1e-7, 10, 60).tolist()]
    assert had == pytest.approx(expected[: len(had)], rel=1e-6)
    assert found.curves[0].recorded_lrs[0] == pytest.approx(1e-7)
