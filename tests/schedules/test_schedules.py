from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import SGD, Adadelta, Adagrad, Adam, Optimizer, RMSprop, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from lrsearch.core.study_plan import PRESETS, load_plan
from lrsearch.errors import InputError
from lrsearch.schedules import (
    FAMILIES,
    WSD,
    Choice,
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
    PlateauLR,
    Polynomial,
    Range,
    Schedule,
    Step,
    Sweep,
    TimeBased,
    Warmup,
    schedule_from_dict,
)

Curve = npt.NDArray[np.float64]

PEAK = 0.3
GROUP_LRS = (PEAK, 0.03)
MOMENTUM_FAMILIES: tuple[Schedule, ...] = (OneCycle(), Cyclic(), Warmup(OneCycle()), Warmup(Cyclic()))
INNER = [family() for name, family in FAMILIES.items() if name not in ("warmup", "sweep")]
VARIANTS: list[Schedule] = [
    *(family() for family in FAMILIES.values()),
    *(Warmup(inner, 0.1) for inner in INNER),
    Step(0.4, 0.5),
    MultiStep((0.2, 0.5, 0.9), 0.5),
    Polynomial(0.5),
    Cyclic(3, mode="triangular2"),
    Cyclic(5, 0.1, "exp_range", 0.2),
    OneCycle(0.5, 0.1, 1e-3),
    CosineRestarts(3, 2),
    WSD(0.0, 1.0 - 1e-9),
    WSD(0.3, 0.7),
    WSD(0.9, 0.05),
    Sweep(1e-4, 1.0, "linear"),
]
HORIZONS = [(4, None), (7, 2), (60, 6), (60, None), (97, 10), (400, None)]


def make_optimizer(kind: Callable[..., Optimizer] = SGD, **settings: Any) -> Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in GROUP_LRS]
    return kind(groups, lr=1.0, **settings)


def lrs(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def play(optimizer: Optimizer, scheduler: LRScheduler, steps: int) -> Curve:
    """The lrs of every update and group, shape (steps, groups), in the documented order of calls."""
    used = []
    for _ in range(steps):
        used.append(lrs(optimizer))
        optimizer.step()
        scheduler.step()
    return np.array(used)


def built(schedule: Schedule, steps: int, epoch: int | None = None) -> Curve:
    optimizer = make_optimizer()
    return play(optimizer, schedule.build(optimizer, steps, epoch), steps)


def identifier(value: object) -> str:
    return repr(value)


def test_every_family_of_the_design_is_there_under_its_name() -> None:
    assert list(FAMILIES) == [
        "constant",
        "step",
        "multi_step",
        "exponential",
        "time_based",
        "inverse_time",
        "multiplicative",
        "polynomial",
        "plateau",
        "cyclic",
        "one_cycle",
        "cosine",
        "cosine_restarts",
        "linear",
        "wsd",
        "warmup",
        "sweep",
    ]
    assert all(FAMILIES[name].name == name for name in FAMILIES)
    searched = {family["name"] for preset in PRESETS for family in load_plan(preset).decay.families}
    assert searched < set(FAMILIES)


# The scheduler, the curve and the code are one and the same.


@pytest.mark.parametrize(("steps", "epoch"), HORIZONS)
@pytest.mark.parametrize("schedule", VARIANTS, ids=identifier)
def test_the_curve_is_what_the_scheduler_yields_in_every_group(
    schedule: Schedule, steps: int, epoch: int | None
) -> None:
    curve = schedule.curve(PEAK, steps, epoch)
    ratios = np.array(GROUP_LRS) / PEAK
    np.testing.assert_allclose(built(schedule, steps, epoch), curve[:, None] * ratios, rtol=1e-9)


@pytest.mark.parametrize(("steps", "epoch"), HORIZONS)
@pytest.mark.parametrize("schedule", [v for v in VARIANTS if "Plateau" not in repr(v)], ids=identifier)
def test_the_code_to_paste_yields_the_same_lrs(schedule: Schedule, steps: int, epoch: int | None) -> None:
    names: dict[str, Any] = {"optimizer": make_optimizer()}
    exec(schedule.code(PEAK, steps, epoch), names)
    got = play(names["optimizer"], names["scheduler"], steps)
    np.testing.assert_allclose(got, built(schedule, steps, epoch), rtol=1e-12)


@pytest.mark.parametrize("schedule", VARIANTS, ids=identifier)
def test_the_code_needs_torch_alone_and_names_the_peak(schedule: Schedule) -> None:
    code = schedule.code(PEAK, 60, 6)
    assert code.startswith("from torch.optim import lr_scheduler\n")
    assert "lrsearch" not in code
    assert "lr=0.3" in code


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
    ids=identifier,
)
def test_build_returns_a_scheduler_of_torch(schedule: Schedule, kind: type[LRScheduler]) -> None:
    assert isinstance(schedule.build(make_optimizer(), 60), kind)


@pytest.mark.parametrize("schedule", VARIANTS, ids=identifier)
def test_an_earlier_scheduler_on_the_same_optimizer_leaves_no_trace(schedule: Schedule) -> None:
    optimizer = make_optimizer()
    lr_scheduler.ConstantLR(optimizer, factor=1.0)
    for group in optimizer.param_groups:
        group["lr"] *= 2
    got = play(optimizer, schedule.build(optimizer, 50), 50)
    expected = schedule.curve(2 * PEAK, 50)
    np.testing.assert_allclose(got[:, 0], expected, rtol=1e-9)


@pytest.mark.parametrize("schedule", VARIANTS, ids=identifier)
def test_a_saved_state_continues_where_it_was(schedule: Schedule) -> None:
    optimizer = make_optimizer(momentum=0.9)
    scheduler = schedule.build(optimizer, 40)
    play(optimizer, scheduler, 17)
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), scheduler.state_dict()), file)
    file.seek(0)
    optimizer_state, scheduler_state = torch.load(file, weights_only=True)
    rest = play(optimizer, scheduler, 23)

    again = make_optimizer(momentum=0.9)
    scheduler = schedule.build(again, 40)
    again.load_state_dict(optimizer_state)
    scheduler.load_state_dict(scheduler_state)
    assert play(again, scheduler, 23).tolist() == rest.tolist()


@pytest.mark.parametrize("schedule", VARIANTS, ids=identifier)
def test_an_lr_held_in_a_tensor_is_scheduled_too(schedule: Schedule) -> None:
    optimizer = Adam(
        [torch.nn.Parameter(torch.ones(1))], lr=torch.tensor(PEAK), capturable=False, foreach=False
    )
    got = play(optimizer, schedule.build(optimizer, 60), 60)
    np.testing.assert_allclose(got[:, 0], schedule.curve(PEAK, 60), rtol=1e-3, atol=1e-7)


# Each family against its formula.


def exponential(n: int, steps: int) -> float:
    return math.exp(math.log(0.02) / steps * n)


def step_drops(n: int, _: int) -> float:
    return float(0.5 ** (n // 25))


def multi_step_drops(n: int, _: int) -> float:
    return 1.0 if n < 30 else 0.2 if n < 55 else 0.04


def inverse_time(n: int, steps: int) -> float:
    return 1 / (1 + (1 / 0.05 - 1) / steps * n)


def wsd(n: int, _: int) -> float:
    if n < 10:
        return 0.01 + 0.99 * n / 10
    return 1.0 if n < 75 else (100 - n) / 25


def restarts(n: int, _: int) -> float:  # cycles of 15, 30 and 60 updates: 100 / 7, rounded up
    start, length = (0, 15) if n < 15 else (15, 30) if n < 45 else (45, 60)
    return 0.5 * (1 + math.cos(math.pi * (n - start) / length))


def triangle(n: int, steps: int) -> tuple[int, float]:
    """Which of four triangles from update 0 to the last, and the height in it."""
    place = 4 * n / (steps - 1)
    cycle = min(int(place), 3)
    inside = place - cycle
    return cycle, 2 * inside if inside < 0.5 else 2 - 2 * inside


def triangular(n: int, steps: int) -> float:
    return 0.25 + 0.75 * triangle(n, steps)[1]


def triangular2(n: int, steps: int) -> float:
    cycle, height = triangle(n, steps)
    return 0.25 + 0.75 * height / 2.0**cycle


def exp_range(n: int, steps: int) -> float:
    return float(0.25 + 0.75 * triangle(n, steps)[1] * 0.1 ** (n / (steps - 1)))


def one_cycle(n: int, _: int) -> float:  # up over updates 0 … 29, down over 29 … 99
    low, p = (0.04, n / 29) if n <= 29 else (4e-6, 1 - (n - 29) / 70)
    return low + (1 - low) * (1 - math.cos(math.pi * p)) / 2


def warm_linear(n: int, _: int) -> float:
    return 0.01 + 0.99 * n / 20 if n < 20 else 1 - (n - 20) / 80


FORMULAS: list[tuple[Schedule, Callable[[int, int], float]]] = [
    (Constant(), lambda n, steps: 1.0),
    (Step(0.25, 0.5), step_drops),
    (MultiStep((0.3, 0.55), 0.2), multi_step_drops),
    (Exponential(0.02), exponential),
    (InverseTime(0.05), inverse_time),
    (Multiplicative(0.02), exponential),
    (Polynomial(2.5), lambda n, steps: float((1 - n / steps) ** 2.5)),
    (Plateau(), lambda n, steps: 1.0),
    (Cyclic(), triangular),
    (Cyclic(mode="triangular2"), triangular2),
    (Cyclic(mode="exp_range"), exp_range),
    (OneCycle(), one_cycle),
    (Cosine(), lambda n, steps: 0.5 * (1 + math.cos(math.pi * n / steps))),
    (CosineRestarts(3, 2), restarts),
    (Linear(), lambda n, steps: 1 - n / steps),
    (WSD(0.1, 0.25), wsd),
    (Warmup(Linear(), 0.2), warm_linear),
]


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS, ids=[repr(schedule) for schedule, _ in FORMULAS])
def test_each_update_follows_the_formula(schedule: Schedule, formula: Callable[[int, int], float]) -> None:
    expected = [[lr * formula(n, 100) for lr in GROUP_LRS] for n in range(100)]
    np.testing.assert_allclose(built(schedule, 100), expected, rtol=1e-9)


def test_time_based_divides_by_one_plus_d_n_and_ends_at_final() -> None:
    lr = built(TimeBased(0.1), 100)[:, 0]
    d = lr[1] / lr[2] - 1  # eta_2 = eta_1 / (1 + d)
    eta = [PEAK]
    for n in range(100):
        eta.append(eta[-1] / (1 + d * n))
    np.testing.assert_allclose(lr, eta[:-1], rtol=1e-9)
    assert eta[-1] == pytest.approx(0.1 * PEAK, rel=1e-9)


@pytest.mark.parametrize("final", [1e-6, 0.01, 0.999])
@pytest.mark.parametrize("steps", [2, 3, 10_000])
def test_time_based_reaches_final_at_any_horizon(final: float, steps: int) -> None:
    ratios = TimeBased(final).curve(1.0, steps)
    d = ratios[1] / ratios[2] - 1 if steps > 2 else 1 / final - 1
    assert ratios[-1] / (1 + d * (steps - 1)) == pytest.approx(final, rel=1e-6)


@pytest.mark.parametrize("spacing", ["log", "linear"])
@pytest.mark.parametrize("steps", [2, 3, 100, 20_000])
def test_a_sweep_uses_both_ends(spacing: Any, steps: int) -> None:
    got = built(Sweep(PEAK / 1e6, PEAK, spacing), steps)[[0, -1]]
    np.testing.assert_allclose(got, [[PEAK / 1e6, PEAK / 1e7], [PEAK, PEAK / 10]], rtol=1e-12)


def test_a_log_sweep_multiplies_by_a_constant() -> None:
    got = built(Sweep(1e-6, 1.0), 31) / PEAK
    expected = [[1e-6 * 10 ** (i / 5), 1e-7 * 10 ** (i / 5)] for i in range(31)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_a_linear_sweep_adds_a_constant() -> None:
    got = built(Sweep(0.1, 0.7, "linear"), 4) * 0.7 / PEAK
    np.testing.assert_allclose(got, [[0.1, 0.01], [0.3, 0.03], [0.5, 0.05], [0.7, 0.07]], rtol=1e-12)


@pytest.mark.parametrize("spacing", ["log", "linear"])
def test_in_a_sweep_a_group_may_have_its_own_course_in_the_code_too(spacing: Any) -> None:
    course = Sweep(1e-4, 1.0, spacing).curve(1.0, 31) ** 0.5
    schedule = Sweep(1e-4, 1.0, spacing, (tuple(course.tolist()), (1.0,)))
    got = built(schedule, 31)
    expected = np.stack([GROUP_LRS[0] * course, np.full(31, 0.03)])
    np.testing.assert_allclose(got, expected.T, rtol=1e-12)
    names: dict[str, Any] = {"optimizer": make_optimizer()}
    exec(schedule.code(PEAK, 31), names)
    np.testing.assert_allclose(play(names["optimizer"], names["scheduler"], 31), got, rtol=1e-12)


# Per epoch.


def per_epoch(scheduler: Callable[[Optimizer], LRScheduler], epochs: int, epoch: int) -> Curve:
    """What the scheduler does in a loop that steps it at epoch ends."""
    optimizer = make_optimizer()
    by_epoch = play(optimizer, scheduler(optimizer), epochs)
    return np.repeat(by_epoch, epoch, axis=0)


@pytest.mark.parametrize(
    ("schedule", "torchs"),
    [
        (Step(0.3, 0.2), lambda optimizer: lr_scheduler.StepLR(optimizer, 3, 0.2)),
        (Step(0.27, 0.2), lambda optimizer: lr_scheduler.StepLR(optimizer, 3, 0.2)),
        (MultiStep((0.42, 0.78), 0.2), lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [4, 8], 0.2)),
        (Multiplicative(0.01), lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.01**0.1)),
        (
            Multiplicative(0.01),
            lambda optimizer: lr_scheduler.MultiplicativeLR(optimizer, lambda _: 0.01**0.1),
        ),
    ],
)
def test_drops_fall_on_epoch_ends_where_the_epochs_are_known(
    schedule: Schedule, torchs: Callable[[Optimizer], LRScheduler]
) -> None:
    np.testing.assert_allclose(built(schedule, 70, 7), per_epoch(torchs, 10, 7), rtol=1e-9)


def test_a_drop_nearer_to_the_end_than_to_an_epoch_end_is_not_lost() -> None:
    curve = MultiStep((0.5, 0.9), 0.1).curve(1.0, 20, 10)
    assert np.flatnonzero(np.diff(curve)).tolist() == [9, 17]


@pytest.mark.parametrize("schedule", [Constant(), Linear(), Cosine(), WSD(), Exponential(), OneCycle()])
def test_smooth_schedules_move_every_update_though_the_epochs_are_known(schedule: Schedule) -> None:
    assert schedule.curve(PEAK, 70, 7).tolist() == schedule.curve(PEAK, 70).tolist()


# Shapes.


@pytest.mark.parametrize(
    "schedule",
    [*(f() for n, f in FAMILIES.items() if n not in ("cyclic", "one_cycle", "sweep"))],
    ids=identifier,
)
def test_two_horizons_agree_at_equal_fractions(schedule: Schedule) -> None:
    short, long = schedule.curve(1.0, 100), schedule.curve(1.0, 1000)
    tolerance = 3e-3 if schedule.name == "time_based" else 1e-12
    np.testing.assert_allclose(short, long[::10], atol=tolerance)


@pytest.mark.parametrize(
    "schedule",
    [Cyclic(), Cyclic(mode="triangular2"), Cyclic(mode="exp_range"), OneCycle(), Sweep(1e-3, 1.0)],
    ids=identifier,
)
def test_two_horizons_agree_from_first_to_last_update(schedule: Schedule) -> None:
    short, long = schedule.curve(1.0, 100), schedule.curve(1.0, 991)
    np.testing.assert_allclose(short, long[::10], atol=0.02 if schedule.name == "one_cycle" else 1e-12)


@pytest.mark.parametrize(
    "schedule",
    [
        Step(1 / 3),
        MultiStep((1 / 3, 2 / 3)),
        WSD(0.033, 0.333),
        Warmup(Step(1 / 3), 0.033),
    ],
    ids=identifier,
)
def test_where_fractions_are_no_whole_updates_horizons_differ_at_few_places(schedule: Schedule) -> None:
    short, long = schedule.curve(1.0, 200), schedule.curve(1.0, 2000)[::10]
    assert np.count_nonzero(np.abs(short - long) > 0.02) <= 6


def test_warm_restarts_come_at_equal_fractions_to_within_the_rounding_of_the_first_cycle() -> None:
    restarts = [
        np.flatnonzero(np.diff(CosineRestarts(3, 2).curve(1.0, steps)) > 0.5) + 1 for steps in (200, 2000)
    ]
    assert restarts[0].tolist() == [29, 87]  # 200 / 7, rounded up, and three times that
    assert restarts[1].tolist() == [286, 858]


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize("steps", [50, 97, 400])
def test_cyclic_starts_and_ends_on_a_trough_at_a_quarter_of_the_peak(mode: Any, steps: int) -> None:
    curve = Cyclic(mode=mode).curve(PEAK, steps)
    np.testing.assert_allclose(curve[[0, -1]], PEAK / 4, rtol=1e-9)


@pytest.mark.parametrize("schedule", [OneCycle(), WSD(), *(Warmup(inner) for inner in INNER)], ids=identifier)
@pytest.mark.parametrize("steps", [4, 5, 100])
def test_schedules_with_a_rise_start_below_the_peak(schedule: Schedule, steps: int) -> None:
    assert schedule.curve(PEAK, steps)[0] <= 0.05 * PEAK


@pytest.mark.parametrize(
    "schedule",
    [
        build(extreme)
        for extreme in (1e-300, 1 - 1e-15)
        for build in (
            lambda x: Step(x, x),
            lambda x: MultiStep((x,), x),
            lambda x: TimeBased(x),
            lambda x: Cyclic(3, x, "exp_range", x),
            lambda x: OneCycle(x, x, x),
            lambda x: WSD(0.0, x),
            lambda x: Warmup(TimeBased(0.1), x),
            lambda x: Warmup(MultiStep((x,), x), x),
        )
    ],
    ids=identifier,
)
def test_parameters_at_the_edge_of_their_range_still_make_a_scheduler(schedule: Schedule) -> None:
    expected = schedule.curve(PEAK, 20)
    assert np.all(np.isfinite(expected))
    np.testing.assert_allclose(built(schedule, 20)[:, 0], expected, rtol=1e-9, atol=1e-12)


def test_one_cycle_reaches_the_peak_also_on_the_shortest_horizon() -> None:
    np.testing.assert_allclose(OneCycle().curve(1.0, 3), [0.04, 1.0, 4e-6], rtol=1e-9)


@pytest.mark.parametrize("inner", INNER, ids=identifier)
def test_warmup_is_followed_by_the_inner_schedule(inner: Schedule) -> None:
    expected = WSD(0.0, 0.2) if inner.name == "wsd" else inner
    curve = Warmup(inner, 0.2).curve(PEAK, 100)
    np.testing.assert_allclose(curve[20:], expected.curve(PEAK, 80), rtol=1e-12)
    assert np.all(np.diff(curve[:21]) > 0)


# Momentum.


@pytest.mark.parametrize("schedule", MOMENTUM_FAMILIES, ids=identifier)
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
    scheduler = schedule.build(optimizer, 30)
    for _ in range(30):
        play(optimizer, scheduler, 1)
        assert [group.get(key) for group in optimizer.param_groups] == before


@pytest.mark.parametrize("schedule", MOMENTUM_FAMILIES, ids=identifier)
@pytest.mark.parametrize(
    ("kind", "settings"), [(SGD, {"momentum": 0.9}), (RMSprop, {"momentum": 0.9}), (Adam, {})]
)
def test_momentum_falls_while_the_lr_rises_where_it_is_on(
    schedule: Schedule, kind: Any, settings: dict[str, Any]
) -> None:
    optimizer = make_optimizer(kind, **settings)
    scheduler = schedule.build(optimizer, 61)
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


@pytest.mark.parametrize("schedule", MOMENTUM_FAMILIES, ids=identifier)
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
    play(ours, schedule.build(ours, 30), 11)
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


def plateau_run(schedule: Schedule, losses: list[float]) -> Curve:
    """The lrs of a training with a validation at each epoch's end."""
    optimizer = make_optimizer()
    scheduler = schedule.build(optimizer, EPOCH * len(losses), EPOCH)
    assert isinstance(scheduler, PlateauLR)
    used = []
    for loss in losses:
        used.append(play(optimizer, scheduler, EPOCH))
        scheduler.report(loss)
    return np.concatenate(used)


def pasted_plateau_run(schedule: Schedule, losses: list[float], warmup: int = 0) -> Curve:
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
        optimizer, factor=0.3, patience=patience, threshold=0.0, min_lr=[lr * 0.05 for lr in GROUP_LRS]
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
    scheduler = Plateau(patience=0.2).build(optimizer, 200)
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
    scheduler = Plateau(patience=0.1).build(optimizer, 20)
    assert isinstance(scheduler, PlateauLR)
    for _ in range(20):
        play(optimizer, scheduler, 1)
        scheduler.report(1.0)
    assert lrs(optimizer)[0] < 1e-10


def test_plateau_holds_still_without_a_validation() -> None:
    assert set(built(Plateau(), 200)[:, 0]) == {PEAK}


# As data.


@pytest.mark.parametrize("schedule", VARIANTS, ids=identifier)
def test_json_and_back_is_the_same_schedule(schedule: Schedule) -> None:
    text = json.dumps(schedule.to_dict(), allow_nan=False)
    assert schedule_from_dict(json.loads(text)) == schedule


def test_numpy_values_become_plain_ones() -> None:
    schedule = MultiStep(tuple(np.array([0.5, 0.75])), np.float64(0.1))
    assert "np." not in repr(schedule) + schedule.code(PEAK, 100)


def test_a_schedule_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        Step().gamma = 0.5  # type: ignore[misc]


def test_with_params_changes_what_it_names() -> None:
    assert Step(0.5, 0.2).with_params(gamma=0.4) == Step(0.5, 0.4)


def test_with_params_reaches_the_inner_schedule() -> None:
    changed = Warmup(Step(0.5, 0.2), 0.1).with_params(**{"inner.gamma": 0.4, "fraction": 0.2})
    assert changed == Warmup(Step(0.5, 0.4), 0.2)


@pytest.mark.parametrize(
    "schedule", [*(family() for family in FAMILIES.values()), Warmup(Step())], ids=identifier
)
def test_every_corner_of_the_search_space_is_a_valid_schedule(schedule: Schedule) -> None:
    for key, axis in schedule.search_space().items():
        for corner in axis.values if isinstance(axis, Choice) else (axis.low, axis.high):
            value: Any = schedule.with_params(**{key: corner}).to_dict()
            for part in key.split("."):
                value = value[part]
            assert value == (list(corner) if isinstance(corner, tuple) else corner)


@pytest.mark.parametrize(
    "name", [name for name in FAMILIES if name not in ("constant", "linear", "cosine", "sweep")]
)
def test_families_with_something_to_choose_have_a_search_space(name: str) -> None:
    space = FAMILIES[name]().search_space()
    assert space
    assert all(axis.low < axis.high for axis in space.values() if isinstance(axis, Range))


# Bad input: one line that names the argument, the value and the mend.

NAN, INF = float("nan"), float("inf")
FRACTIONS: list[tuple[type[Schedule], str]] = [
    (Step, "every"),
    (Step, "gamma"),
    (MultiStep, "gamma"),
    (Exponential, "final"),
    (TimeBased, "final"),
    (InverseTime, "final"),
    (Multiplicative, "final"),
    (Plateau, "factor"),
    (Plateau, "patience"),
    (Plateau, "floor"),
    (Cyclic, "base"),
    (Cyclic, "end"),
    (OneCycle, "rise"),
    (OneCycle, "start"),
    (OneCycle, "final"),
    (WSD, "cooldown"),
    (Warmup, "fraction"),
]
BAD: list[tuple[Callable[[], object], str]] = [
    *(
        (lambda value=value, family=family, field=field: family(**{field: value}), f"{family.name}.{field}=")
        for family, field in FRACTIONS
        for value in (0, 1, -0.1, 1.5, NAN, INF, True, "0.5", None, [0.5], 10**400)
    ),
    *(
        (lambda value=value: MultiStep(milestones=value), "multi_step.milestones=")
        for value in (
            (),
            (0.5, 0.5),
            (0.7, 0.3),
            (0.0, 0.5),
            (0.5, 1.0),
            (0.5, NAN),
            0.5,
            "0.5",
            None,
            ("a",),
        )
    ),
    *((lambda value=value: Polynomial(value), "polynomial.power=") for value in (0, -1, NAN, INF, "2", None)),
    *((lambda value=value: Plateau(mode=value), "plateau.mode=") for value in ("minimize", None, 1)),
    *((lambda value=value: Cyclic(mode=value), "cyclic.mode=") for value in ("sawtooth", None, 1)),
    *((lambda value=value: Cyclic(cycles=value), "cyclic.cycles=") for value in (0, 2.5, True, "3", 101)),
    *((lambda value=value: CosineRestarts(value), "cosine_restarts.cycles=") for value in (0, 1.5, True, 21)),
    *((lambda value=value: CosineRestarts(2, value), "cosine_restarts.growth=") for value in (0, 1.5, 5)),
    *((lambda value=value: WSD(warmup=value), "wsd.warmup=") for value in (-0.1, 1, NAN, "0")),
    (lambda: WSD(0.5, 0.6), "wsd.cooldown=0.6"),
    *((lambda value=value: Warmup(value), "warmup.inner=") for value in (Sweep(), Warmup(), "cosine", None)),
    *((lambda value=value: Sweep(min_lr=value), "sweep.min_lr=") for value in (0, -1e-3, NAN, INF, "1e-7")),
    *((lambda value=value: Sweep(1e-3, value), "sweep.max_lr=") for value in (1e-3, 1e-4, NAN, INF, "1")),
    (lambda: Sweep(1e-300, 1e300), "sweep.max_lr="),
    *((lambda value=value: Sweep(spacing=value), "sweep.spacing=") for value in ("cubic", None)),
    *((lambda v=v: Sweep(courses=v), "sweep.courses=") for v in ((("1",),), ((NAN,),), 1.0, None, ((),))),
    *(
        (lambda value=value, call=call: call(value), "total_steps=")
        for value in (0, -1, 2.0, True, None, "10")
        for call in (
            lambda steps: Cosine().build(make_optimizer(), steps),
            lambda steps: Cosine().curve(PEAK, steps),
            lambda steps: Cosine().code(PEAK, steps),
        )
    ),
    *(
        (lambda value=value: Step().curve(PEAK, 10, value), "steps_per_epoch=")
        for value in (0, -1, 2.0, True)
    ),
    (lambda: Sweep().curve(PEAK, 1), "total_steps=1"),
    (lambda: OneCycle().build(make_optimizer(), 2), "total_steps=2"),
    (lambda: Warmup(OneCycle()).code(PEAK, 3), "total_steps=3"),
    *((lambda value=value: Cosine().curve(value, 10), "lr=") for value in (0, -0.1, NAN, INF, "0.1", None)),
    (lambda: Step().with_params(gama=0.1), "step.gama=0.1"),
    (lambda: Linear().with_params(final=0.1), "linear.final=0.1"),
    (lambda: Warmup(Step()).with_params(gamma=0.1), "warmup.gamma=0.1"),
    (lambda: Warmup(Step()).with_params(**{"inner.gama": 0.1}), "step.gama=0.1"),
    (lambda: schedule_from_dict({"name": "cosin"}), "schedule.name='cosin'"),
    (lambda: schedule_from_dict({}), "schedule.name=None"),
    (lambda: schedule_from_dict("cosine"), "schedule='cosine'"),  # type: ignore[arg-type]
    (lambda: schedule_from_dict({"name": "step", "gama": 1}), "step.gama=1"),
    (lambda: schedule_from_dict({"name": "warmup", "inner": {"name": "nope"}}), "schedule.name='nope'"),
]


@pytest.mark.parametrize(("call", "start"), BAD)
def test_bad_input_is_named_in_one_line(call: Callable[[], object], start: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(start)
    assert "\n" not in message
    assert ";" in message


# Rules that hold for every parameter.

fractions = st.floats(0.001, 0.999)
simple = st.one_of(
    st.just(Constant()),
    st.just(Linear()),
    st.just(Cosine()),
    st.builds(Step, fractions, fractions),
    st.builds(
        MultiStep, st.lists(fractions, min_size=1, max_size=4, unique=True).map(sorted).map(tuple), fractions
    ),
    st.builds(Exponential, fractions),
    st.builds(TimeBased, fractions),
    st.builds(InverseTime, fractions),
    st.builds(Multiplicative, fractions),
    st.builds(Polynomial, st.floats(0.1, 8)),
    st.builds(Plateau, fractions, fractions, fractions),
)
risen = st.one_of(
    st.builds(
        Cyclic,
        st.integers(1, 20),
        fractions,
        st.sampled_from(["triangular", "triangular2", "exp_range"]),
        fractions,
    ),
    st.builds(OneCycle, fractions, fractions, fractions),
    st.builds(CosineRestarts, st.integers(1, 6), st.integers(1, 3)),
    st.builds(WSD, st.floats(0, 0.5), st.floats(0.01, 0.5)),
)
any_schedule = st.one_of(simple, risen, st.builds(Warmup, st.one_of(simple, risen), fractions))
horizons = st.tuples(st.integers(4, 300), st.one_of(st.none(), st.integers(1, 60)))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(any_schedule, horizons)
def test_no_lr_is_ever_above_the_peak_or_below_zero(
    schedule: Schedule, horizon: tuple[int, int | None]
) -> None:
    curve = schedule.curve(PEAK, *horizon)
    assert curve.shape == (horizon[0],)
    assert np.all((curve >= 0) & (curve <= PEAK * (1 + 1e-12)))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(simple, horizons)
def test_decays_start_at_the_peak_and_never_rise(schedule: Schedule, horizon: tuple[int, int | None]) -> None:
    curve = schedule.curve(PEAK, *horizon)
    assert curve[0] == PEAK
    assert np.all(np.diff(curve) <= 1e-15)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(any_schedule, horizons)
def test_the_scheduler_yields_the_curve_for_any_parameters(
    schedule: Schedule, horizon: tuple[int, int | None]
) -> None:
    ratios = np.array(GROUP_LRS) / PEAK
    expected = schedule.curve(PEAK, *horizon)[:, None] * ratios
    np.testing.assert_allclose(built(schedule, *horizon), expected, rtol=1e-9, atol=1e-15)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(any_schedule, horizons)
def test_curves_scale_with_the_peak(schedule: Schedule, horizon: tuple[int, int | None]) -> None:
    one, ten = schedule.curve(0.1, *horizon), schedule.curve(1.0, *horizon)
    np.testing.assert_allclose(10 * one, ten, rtol=1e-12)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.floats(1e-9, 1e-2), st.floats(1.1, 1e9), st.sampled_from(["log", "linear"]), st.integers(2, 500))
def test_a_sweep_rises_from_end_to_end(low: float, factor: float, spacing: Any, steps: int) -> None:
    curve = Sweep(low, low * factor, spacing).curve(low * factor, steps)
    np.testing.assert_allclose(curve[[0, -1]], [low, low * factor], rtol=1e-12)
    assert np.all(np.diff(curve) > 0)
