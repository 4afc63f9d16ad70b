"""The torch schedulers that schedules make, on optimizers of every kind; the plateau's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adadelta, Adagrad, Adam, Optimizer, RMSprop, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from lrsearch.schedules import (
    WSD,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseTime,
    Linear,
    Multiplicative,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Schedule,
    Step,
    Sweep,
    TimeBased,
    Warmup,
)
from lrsearch.schedules.base import FloatArray
from lrsearch.testing import PEAKS, make_optimizer, play
from lrsearch.training.schedulers import PlateauLR, build
from tests.schedules.playing import INNER, PEAK, built

MOMENTUM_FAMILIES: tuple[Schedule, ...] = (OneCycle(), Cyclic(), Warmup(OneCycle()), Warmup(Cyclic()))
EVERY = [*INNER, *map(Warmup, INNER), Sweep()]


def lrs(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [
        (Constant(), lr_scheduler.ConstantLR),
        (Step(), lr_scheduler.StepLR),
        (MultiStep(), lr_scheduler.MultiStepLR),
        (Exponential(), lr_scheduler.ExponentialLR),
        (TimeBased(), lr_scheduler.MultiplicativeLR),
        (InverseTime(), lr_scheduler.LambdaLR),
        (Multiplicative(), lr_scheduler.MultiplicativeLR),
        (Polynomial(), lr_scheduler.PolynomialLR),
        (Plateau(), lr_scheduler.ReduceLROnPlateau),
        (Cyclic(), lr_scheduler.CyclicLR),
        (OneCycle(), lr_scheduler.OneCycleLR),
        (Cosine(), lr_scheduler.CosineAnnealingLR),
        (CosineRestarts(), lr_scheduler.CosineAnnealingWarmRestarts),
        (Linear(), lr_scheduler.LinearLR),
        (WSD(), lr_scheduler.SequentialLR),
        (Warmup(Cosine()), lr_scheduler.SequentialLR),
        (Sweep(), lr_scheduler.LambdaLR),
    ],
    ids=repr,
)
def test_build_returns_a_scheduler_of_torch(schedule: Schedule, kind: type[LRScheduler]) -> None:
    assert isinstance(build(schedule, make_optimizer(), 60), kind)


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_an_earlier_scheduler_on_the_same_optimizer_leaves_no_trace(schedule: Schedule) -> None:
    optimizer = make_optimizer()
    lr_scheduler.ConstantLR(optimizer, factor=1.0)
    for group in optimizer.param_groups:
        group["lr"] *= 2
    got = play(optimizer, build(schedule, optimizer, 50), 50)
    expected = schedule.curve(2 * PEAK, 50)
    np.testing.assert_allclose(got[:, 0], expected, rtol=1e-9)


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_an_lr_held_in_a_tensor_is_scheduled_too(schedule: Schedule) -> None:
    optimizer = Adam(
        [torch.nn.Parameter(torch.ones(1))], lr=torch.tensor(PEAK), capturable=False, foreach=False
    )
    got = play(optimizer, build(schedule, optimizer, 60), 60)
    np.testing.assert_allclose(got[:, 0], schedule.curve(PEAK, 60), rtol=1e-3, atol=1e-7)


# Momentum.


@pytest.mark.parametrize("schedule", MOMENTUM_FAMILIES, ids=repr)
@pytest.mark.parametrize(
    ("kind", "settings", "key"),
    [
        (SGD, {"momentum": 0.0}, "momentum"),
        (RMSprop, {}, "momentum"),
        (Adam, {"betas": (0.0, 0.99)}, "betas"),
        (Adagrad, {}, "momentum"),
        (Adadelta, {}, "momentum"),
    ],
)
def test_momentum_stays_off_where_it_is_off(
    schedule: Schedule, kind: Any, settings: dict[str, Any], key: str
) -> None:
    optimizer = make_optimizer(kind, **settings)
    before = [group.get(key) for group in optimizer.param_groups]
    scheduler = build(schedule, optimizer, 30)
    for _ in range(30):
        play(optimizer, scheduler, 1)
        assert [group.get(key) for group in optimizer.param_groups] == before


@pytest.mark.parametrize("schedule", MOMENTUM_FAMILIES, ids=repr)
@pytest.mark.parametrize(
    ("kind", "settings"), [(SGD, {"momentum": 0.9}), (RMSprop, {"momentum": 0.9}), (Adam, {})]
)
def test_momentum_falls_while_the_lr_rises_where_it_is_on(
    schedule: Schedule, kind: Any, settings: dict[str, Any]
) -> None:
    optimizer = make_optimizer(kind, **settings)
    scheduler = build(schedule, optimizer, 61)
    used = []
    for _ in range(61):
        group = optimizer.param_groups[0]
        used.append((group["lr"], group["betas"][0] if "betas" in group else group["momentum"]))
        play(optimizer, scheduler, 1)
    lowest, highest = (0.8, 0.9) if "Cyclic" in repr(schedule) else (0.85, 0.95)
    assert used[0][1] == pytest.approx(highest)
    assert max(used)[1] == pytest.approx(lowest, abs=0.01)


class OfOnesOwn(Optimizer):
    """An optimizer with whatever `defaults` and groups its author thought of."""

    def __init__(self, groups: Any, lr: float, in_groups: dict[str, Any], **defaults: Any) -> None:
        super().__init__([{**group, **in_groups} for group in groups], {"lr": lr, **defaults})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize("schedule", MOMENTUM_FAMILIES, ids=repr)
@pytest.mark.parametrize(
    ("kind", "settings", "cycles"),
    [
        (SGD, {"momentum": 0.0}, None),
        (SGD, {"momentum": 0.9}, "momentum"),
        (OfOnesOwn, {"in_groups": {"momentum": 0.9}}, None),
        (OfOnesOwn, {"in_groups": {"betas": [0.9, 0.99]}}, None),
        (OfOnesOwn, {"in_groups": {}, "momentum": None}, None),
        (OfOnesOwn, {"in_groups": {}, "betas": None, "momentum": 0.9}, None),
        (OfOnesOwn, {"in_groups": {"momentum": 0.9}, "momentum": 0.0}, "momentum"),
        (OfOnesOwn, {"in_groups": {}, "betas": [0.9, 0.99]}, "betas"),
    ],
)
def test_momentum_moves_where_torch_can_and_in_the_code_to_paste_too(
    schedule: Schedule, kind: Any, settings: dict[str, Any], cycles: str | None
) -> None:
    """One that torch does not find in the optimizer's `defaults` stays as it is."""
    ours, names = make_optimizer(kind, **settings), {"optimizer": make_optimizer(kind, **settings)}
    before = [dict(group) for group in ours.param_groups]
    exec(schedule.code(PEAK, 30), names)
    play(ours, build(schedule, ours, 30), 11)
    play(names["optimizer"], names["scheduler"], 11)  # type: ignore[arg-type]
    for one, other, was in zip(ours.param_groups, names["optimizer"].param_groups, before, strict=True):
        for key in ("momentum", "betas"):
            assert one.get(key) == other.get(key)
            assert (one.get(key) != was.get(key)) == (key == cycles)


# Plateau.

LOSSES = [
    1.0,
    0.8,
    0.9,
    0.85,
    0.8,
    0.7,
    0.7,
    0.71,
    0.72,
    0.73,
    0.6,
    float("nan"),
    0.65,
    0.61,
    0.62,
    0.63,
    0.5,
]
EPOCH = 5


def plateau_run(schedule: Schedule, losses: list[float]) -> FloatArray:
    """The lrs of a training with a validation at each epoch's end."""
    optimizer = make_optimizer()
    scheduler = build(schedule, optimizer, EPOCH * len(losses), EPOCH)
    assert isinstance(scheduler, PlateauLR)
    used = []
    for loss in losses:
        used.append(play(optimizer, scheduler, EPOCH))
        scheduler.report(loss)
    return np.concatenate(used)


def pasted_plateau_run(schedule: Schedule, losses: list[float], warmup: int = 0) -> FloatArray:
    """The same with the lines to paste, by their comments: validations are read once the warmup is over."""
    names: dict[str, Any] = {"optimizer": make_optimizer()}
    exec(schedule.code(PEAK, EPOCH * len(losses), EPOCH), names)
    used = []
    for number, loss in enumerate(losses, start=1):
        for _ in range(EPOCH):
            used.append(lrs(names["optimizer"]))
            names["optimizer"].step()
            if warmup:
                names["warmup"].step()
        if number * EPOCH >= warmup:
            names["scheduler"].step(loss)
    return np.array(used)


def test_plateau_does_what_torchs_class_does_from_validation_to_validation() -> None:
    patience = 2  # 0.15 of 17 epochs
    optimizer = make_optimizer()
    torchs = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=patience, threshold=0.0, min_lr=[lr * 0.05 for lr in PEAKS]
    )
    expected = []
    for loss in LOSSES:
        expected.append(lrs(optimizer))
        torchs.step(loss)
    got = plateau_run(Plateau(patience=0.15, floor=0.05), LOSSES)
    np.testing.assert_allclose(got, np.repeat(expected, EPOCH, axis=0), rtol=1e-12)
    assert len(np.unique(got[:, 0])) > 2


@pytest.mark.parametrize(
    ("schedule", "warmup"), [(Plateau(patience=0.15), 0), (Warmup(Plateau(patience=0.15), 0.2), 17)]
)
def test_the_plateau_code_to_paste_yields_the_same_lrs(schedule: Schedule, warmup: int) -> None:
    expected = plateau_run(schedule, LOSSES)
    np.testing.assert_allclose(pasted_plateau_run(schedule, LOSSES, warmup), expected, rtol=1e-9)
    assert expected[-1, 0] < PEAK


@pytest.mark.parametrize("losses", [LOSSES, [value - 5 for value in LOSSES]])
def test_a_negated_objective_with_its_direction_gives_the_same_plateaus(losses: list[float]) -> None:
    falling = plateau_run(Plateau(patience=0.15, mode="min"), losses)
    rising = plateau_run(Plateau(patience=0.15, mode="max"), [-loss for loss in losses])
    assert rising.tolist() == falling.tolist()
    assert falling[-1, 0] < PEAK


@pytest.mark.parametrize("every", [1, 4, 10])
def test_patience_is_a_share_of_the_training_however_often_it_validates(every: int) -> None:
    optimizer = make_optimizer()
    scheduler = build(Plateau(patience=0.2), optimizer, 200)
    assert isinstance(scheduler, PlateauLR)
    used: list[float] = []
    for update in range(1, 201):
        used.extend(play(optimizer, scheduler, 1)[:, 0])
        if update % every == 0:
            scheduler.report(1.0)
    first_drop = int(np.flatnonzero(np.diff(used))[0]) + 1
    assert 40 <= first_drop - every <= 40 + every


def test_plateau_lowers_a_tiny_lr_too() -> None:
    optimizer = SGD([torch.nn.Parameter(torch.ones(1))], lr=1e-9)
    scheduler = build(Plateau(patience=0.1), optimizer, 20)
    assert isinstance(scheduler, PlateauLR)
    for _ in range(20):
        play(optimizer, scheduler, 1)
        scheduler.report(1.0)
    assert lrs(optimizer)[0] < 1e-10


def test_plateau_holds_still_without_a_validation() -> None:
    assert set(built(Plateau(), 200)[:, 0]) == {PEAK}
