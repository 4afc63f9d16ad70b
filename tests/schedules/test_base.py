"""What holds for every family: its shape, its data, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsearch.errors import InputError
from lrsearch.schedules import (
    FAMILIES,
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
    schedule_from_dict,
)
from lrsearch.testing import PEAKS, make_optimizer
from lrsearch.training.schedulers import build
from tests.schedules.playing import PEAK, built


@pytest.mark.parametrize("schedule", [Constant(), Linear(), Cosine(), WSD(), Exponential(), OneCycle()])
def test_smooth_schedules_move_every_update_though_the_epochs_are_known(schedule: Schedule) -> None:
    assert schedule.curve(PEAK, 70, 7).tolist() == schedule.curve(PEAK, 70).tolist()


@pytest.mark.parametrize(
    "schedule",
    [*(f() for n, f in FAMILIES.items() if n not in ("cyclic", "one_cycle", "sweep"))],
    ids=repr,
)
def test_two_horizons_agree_at_equal_fractions(schedule: Schedule) -> None:
    short, long = schedule.curve(1.0, 100), schedule.curve(1.0, 1000)
    tolerance = 3e-3 if schedule.name == "time_based" else 1e-12
    np.testing.assert_allclose(short, long[::10], atol=tolerance)


@pytest.mark.parametrize(
    "schedule",
    [Cyclic(), Cyclic(mode="triangular2"), Cyclic(mode="exp_range"), OneCycle(), Sweep(1e-3, 1.0)],
    ids=repr,
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
    ids=repr,
)
def test_where_fractions_are_no_whole_updates_horizons_differ_at_few_places(schedule: Schedule) -> None:
    short, long = schedule.curve(1.0, 200), schedule.curve(1.0, 2000)[::10]
    assert np.count_nonzero(np.abs(short - long) > 0.02) <= 6


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
    ids=repr,
)
def test_parameters_at_the_edge_of_their_range_still_make_a_scheduler(schedule: Schedule) -> None:
    expected = schedule.curve(PEAK, 20)
    assert np.all(np.isfinite(expected))
    np.testing.assert_allclose(built(schedule, 20)[:, 0], expected, rtol=1e-9, atol=1e-12)


def test_numpy_values_become_plain_ones() -> None:
    schedule = MultiStep(tuple(np.array([0.5, 0.75])), np.float64(0.1))
    assert "np." not in repr(schedule) + schedule.code(PEAK, 100)


def test_a_schedule_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        Step().gamma = 0.5  # type: ignore[misc]


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
            lambda steps: build(Cosine(), make_optimizer(), steps),
            lambda steps: Cosine().curve(PEAK, steps),
            lambda steps: Cosine().code(PEAK, steps),
        )
    ),
    *(
        (lambda value=value: Step().curve(PEAK, 10, value), "steps_per_epoch=")
        for value in (0, -1, 2.0, True)
    ),
    (lambda: Sweep().curve(PEAK, 1), "total_steps=1"),
    (lambda: build(OneCycle(), make_optimizer(), 2), "total_steps=2"),
    (lambda: Warmup(OneCycle()).code(PEAK, 3), "total_steps=3"),
    *((lambda value=value: Cosine().curve(value, 10), "lr=") for value in (0, -0.1, NAN, INF, "0.1", None)),
    (lambda: schedule_from_dict({"name": "cosin"}), "schedule.name='cosin'"),
    (lambda: schedule_from_dict({}), "schedule.name=None"),
    (lambda: schedule_from_dict("cosine"), "schedule='cosine'"),  # type: ignore[arg-type]
    (lambda: schedule_from_dict({"name": "step", "gama": 1}), "step.gama=1"),
    (lambda: schedule_from_dict({"name": "warmup", "inner": {"name": "nope"}}), "schedule.inner.name='nope'"),
]


@pytest.mark.parametrize(("call", "start"), BAD)
def test_bad_input_is_named_in_one_line(call: Callable[[], object], start: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(start)
    assert "\n" not in message
    assert ";" in message


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
    ratios = np.array(PEAKS) / PEAK
    expected = schedule.curve(PEAK, *horizon)[:, None] * ratios
    np.testing.assert_allclose(built(schedule, *horizon), expected, rtol=1e-9, atol=1e-15)
