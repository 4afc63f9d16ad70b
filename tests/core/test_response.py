"""The response on functions with known answers, symmetric and cliff-shaped, noisy and not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsearch.core.response import Interval, Observation, Response, Side, Tolerance
from lrsearch.core.stats import Noise
from lrsearch.errors import InputError

PROPERTY = settings(derandomize=True, deadline=None, max_examples=25)
GRID = [4.0**k for k in range(-6, 0)]


def response(
    objective: Callable[[float], float],
    lrs: Sequence[float] = GRID,
    diverged: Sequence[float] = (),
    noise: Noise | None = None,
) -> Response:
    """One trial an lr, `objective` a function of log2 lr."""
    survived = [Observation(lr, objective(math.log2(lr))) for lr in lrs]
    return Response([*survived, *(Observation(lr, None, diverged=True) for lr in diverged)], noise)


def parabola(best: float, curvature: float = 0.1) -> Callable[[float], float]:
    return lambda x: 0.3 + curvature * (x - math.log2(best)) ** 2


# The best, its vertex, and the edges.


@pytest.mark.parametrize("best", [0.0125, 0.0156, 0.02])
def test_the_vertex_of_a_parabola_is_exact(best: float) -> None:
    vertex = response(parabola(best)).vertex()
    assert vertex.kind == "parabola"
    assert vertex.lrs == pytest.approx((best,), rel=1e-9)


def test_the_vertex_is_exact_on_an_uneven_grid() -> None:
    vertex = response(parabola(0.012), [0.001, 0.006, 0.013, 0.02, 0.3]).vertex()
    assert vertex.lrs == pytest.approx((0.012,), rel=1e-9)


def test_a_cliff_gives_both_midpoints() -> None:
    losses = {0.01: 0.5, 0.04: 0.4, 0.16: 0.75}
    vertex = Response([Observation(lr, loss) for lr, loss in losses.items()]).vertex()
    assert vertex.kind == "cliff"
    assert vertex.lrs == pytest.approx((0.02, 0.08))


def test_excesses_three_times_apart_are_still_a_parabola() -> None:
    losses = {0.01: 0.5, 0.04: 0.4, 0.16: 0.699}
    assert Response([Observation(lr, loss) for lr, loss in losses.items()]).vertex().kind == "parabola"


def test_a_diverged_neighbour_is_a_cliff() -> None:
    vertex = response(parabola(1.0), [0.01, 0.04], diverged=[0.16]).vertex()
    assert vertex.kind == "cliff"
    assert vertex.lrs == pytest.approx((0.02, 0.08))


def test_on_an_edge_the_midpoint_to_the_only_neighbour_is_next() -> None:
    vertex = response(parabola(1.0), [0.01, 0.04]).vertex()
    assert vertex.kind == "edge"
    assert vertex.lrs == pytest.approx((0.02,))


def test_a_single_lr_leaves_nothing_to_try_between() -> None:
    assert response(parabola(1.0), [0.01]).vertex().lrs == ()


@pytest.mark.parametrize(
    ("best", "diverged", "side"),
    [
        (1e-5, [], "low"),
        (1.0, [], "high"),
        (0.01, [], None),
        (1.0, [1.0], None),
        (0.01, [1.0], None),
        (1e-5, [1.0], "low"),
    ],
)
def test_the_grid_grows_where_the_best_is_the_last_lr_tried(
    best: float, diverged: list[float], side: Side | None
) -> None:
    assert response(parabola(best), diverged=diverged).needs_extension() == side


def test_where_all_diverged_lower_lrs_are_needed() -> None:
    assert response(parabola(1.0), [], diverged=[0.1, 1.0]).needs_extension() == "low"


def test_equal_objectives_ask_for_no_extension() -> None:
    assert response(lambda x: 2.3).needs_extension() is None


def test_on_a_tie_the_lower_lr_is_best() -> None:
    assert Response([Observation(0.1, 0.5), Observation(0.01, 0.5), Observation(1.0, 0.6)]).best_lr == 0.01


def test_replicates_are_averaged_and_give_the_noise() -> None:
    trials = [Observation(0.01, value, seed) for seed, value in enumerate([1.0, 2.0, 3.0])]
    found = Response([*trials, Observation(0.1, 1.5)])
    assert (found.best_lr, found.noise) == (0.1, Noise(1.0, 2))


def test_an_lr_that_diverged_on_one_seed_is_a_cliff_and_no_best() -> None:
    trials = [Observation(0.01, 0.5), Observation(0.1, 0.1), Observation(0.1, None, 1, diverged=True)]
    found = Response(trials)
    assert (found.best_lr, found.cliff) == (0.01, 0.1)


def test_what_survives_above_the_cliff_is_left_out() -> None:
    found = Response([Observation(0.01, 0.5), Observation(0.1, None, diverged=True), Observation(1.0, 2.3)])
    assert found.lrs.tolist() == [0.01]


# The fit, without noise.


@pytest.mark.parametrize("best", [0.009, 0.0156, 0.03])
def test_a_parabola_without_noise_is_found(best: float) -> None:
    fitted = response(parabola(best)).fit()
    interval = fitted.interval()
    assert fitted.lr == pytest.approx(best, rel=0.1)
    assert interval.low <= best <= interval.high
    assert interval.octaves < 1


def test_the_fitted_objective_follows_the_losses() -> None:
    truth = parabola(0.0156)
    near = np.array([0.008, 0.0156, 0.03])
    assert response(truth).fit().objective(near) == pytest.approx([truth(x) for x in np.log2(near)], abs=0.02)


@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_the_tolerance_of_a_parabola_is_that_of_its_formula(delta: float) -> None:
    tolerance = response(parabola(0.0156)).fit().tolerance(delta)
    half = 2 ** math.sqrt(delta / 0.1)
    assert (tolerance.low, tolerance.high) == pytest.approx((0.0156 / half, 0.0156 * half), rel=0.15)
    assert not tolerance.low_open
    assert not tolerance.high_open


def test_a_wide_tolerance_is_the_tested_range_and_open() -> None:
    tolerance = response(parabola(0.0156)).fit().tolerance(100.0)
    assert (tolerance.low, tolerance.high) == pytest.approx((GRID[0], GRID[-1]))
    assert tolerance.low_open
    assert tolerance.high_open


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_a_flat_response_has_the_tested_range_open_at_both_ends(level: float) -> None:
    fitted = response(lambda x: 2.3).fit()
    assert fitted.interval(level) == Interval(GRID[0], GRID[-1], level, low_open=True, high_open=True)
    assert (fitted.lr, fitted.expected_gain) == (GRID[0], 0.0)


def test_a_response_of_noise_alone_is_open_at_some_end() -> None:
    open_ends = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        trials = [Observation(lr, float(rng.normal())) for lr in GRID]
        trials += [Observation(GRID[2], float(rng.normal()), seed) for seed in (1, 2)]
        interval = Response(trials, Noise(1.0)).fit().interval()
        open_ends.append(interval.low_open or interval.high_open)
    assert np.mean(open_ends) > 0.9


def test_the_interval_never_passes_the_cliff() -> None:
    interval = response(parabola(0.2), GRID, diverged=[0.5]).fit().interval(0.99)
    assert interval.high <= 0.5
    assert not interval.high_open


def test_a_wall_above_the_best_bounds_the_lr_as_a_divergence_does() -> None:
    losses = {0.476: 0.104, 0.952: 0.088, 1.9: 2.147}
    walled = Response([Observation(lr, loss) for lr, loss in losses.items()])
    assert walled.cliff == 1.9
    assert walled.fit().lr == 0.952
    interval = walled.fit().interval()
    assert (interval.low, interval.high, interval.high_open) == (0.476, 1.9, False)


@pytest.mark.parametrize("steeper", [1, 4, 15])
def test_a_side_that_is_steep_but_can_be_fitted_is_no_wall(steeper: float) -> None:
    assert (
        response(
            lambda x: (steeper if x > -6 else 1) * (x + 6) ** 2, [4.0**k for k in (-5, -4, -3, -2)]
        ).cliff
        is None
    )


def test_two_lrs_keep_the_better_and_say_nothing_more() -> None:
    fitted = response(parabola(1.0), [0.01, 0.1]).fit()
    assert fitted.lr == 0.1
    assert fitted.interval() == Interval(0.01, 0.1, 0.9, low_open=True, high_open=True)


def test_more_noise_widens_the_interval_and_raises_what_could_be_gained() -> None:
    quiet, loud = (response(parabola(0.0156), noise=Noise(sd)).fit() for sd in (0.01, 0.3))
    assert quiet.interval().octaves < loud.interval().octaves
    assert quiet.expected_gain < 0.01 < loud.expected_gain < 0.3


def test_the_choice_keeps_away_from_a_steep_side() -> None:
    def cliff(x: float) -> float:
        u = x - math.log2(0.02)
        return 0.1 * u**2 * (8 if u > 0 else 1)

    assert response(cliff, noise=Noise(0.2)).fit().lr < 0.02


# Where the best lr under another schedule is known.


def test_an_expected_lr_narrows_what_noise_leaves_open() -> None:
    losses = {0.005: 0.36, 0.01: 0.31, 0.02: 0.30, 0.04: 0.32, 0.08: 0.36}
    trials = [Observation(lr, loss) for lr, loss in losses.items()]
    alone, expected = (Response(trials, Noise(0.03), lr).fit().interval() for lr in (None, 0.02))
    assert (alone.high_open, expected.high_open) == (True, False)
    assert alone.low <= expected.low < 0.02 < expected.high <= alone.high


def test_clear_losses_overrule_an_expected_lr() -> None:
    losses = parabola(0.0156)
    trials = [Observation(lr, losses(math.log2(lr))) for lr in GRID]
    alone, misled = (Response(trials, Noise(0.01, 2), lr).fit() for lr in (None, 0.5))
    assert misled.lr == pytest.approx(alone.lr, rel=0.1)
    assert misled.interval().low <= 0.0156 <= misled.interval().high


def test_two_lrs_around_an_expected_one_bound_the_optimum_and_the_better_one_is_taken() -> None:
    trials = [Observation(0.001, 0.5), Observation(0.08, 0.45)]
    fitted = Response(trials, Noise(0.1), 0.01).fit()
    assert fitted.lr == 0.08
    interval, tolerance = fitted.interval(), fitted.tolerance(0.01)
    assert (interval.low_open, interval.high_open) == (False, False)
    assert tolerance.high == pytest.approx(0.08)


def test_the_interval_holds_the_choice_where_the_expected_lr_lies_elsewhere() -> None:
    trials = [Observation(0.0025, 2.03), Observation(0.005, 2.55)]
    fitted = Response(trials, Noise(1.0, 2), 0.02).fit()
    assert fitted.interval().low <= fitted.lr == 0.0025


# Properties.

LOSSES = st.lists(st.floats(0, 1, width=16), min_size=5, max_size=7, unique=True)
SPREAD_OUT = LOSSES.filter(lambda losses: max(losses) - min(losses) > 0.1)


def answers(losses: Sequence[float], lr_scale: float = 1.0) -> list[float]:
    trials = [Observation(lr_scale * 4.0**k, loss) for k, loss in enumerate(losses)]
    trials += [Observation(lr_scale * 4.0, losses[1] + d, seed) for seed, d in ((1, 0.02), (2, -0.01))]
    fitted = Response(trials).fit()
    interval, tolerance = fitted.interval(), fitted.tolerance(0.1 * float(np.ptp(losses)))
    lrs = [fitted.lr, interval.low, interval.high, tolerance.low, tolerance.high]
    return [lr / lr_scale for lr in lrs]


@given(SPREAD_OUT, st.floats(1e-4, 1e3))
@PROPERTY
def test_scaling_the_lrs_scales_the_answers(losses: list[float], scale: float) -> None:
    assert answers(losses, scale) == pytest.approx(answers(losses), rel=0.1)


@given(SPREAD_OUT, st.floats(-10, 10), st.sampled_from([1e-3, 0.5, 8.0, 1e3]))
@PROPERTY
def test_the_unit_and_the_zero_of_the_objective_do_not_matter(
    losses: list[float], shift: float, scale: float
) -> None:
    def interval(factor: float, offset: float) -> Interval:
        trials = [Observation(4.0**k, factor * loss + offset) for k, loss in enumerate(losses)]
        trials += [Observation(4.0, factor * (losses[1] + 0.02) + offset, 1)]
        return Response(trials).fit().interval()

    plain, moved = interval(1.0, 0.0), interval(scale, scale * shift)
    assert (moved.low, moved.high) == pytest.approx((plain.low, plain.high), rel=1e-3)


@given(SPREAD_OUT, st.floats(0, 1))
@PROPERTY
def test_a_higher_level_holds_the_lower_one(losses: list[float], sd: float) -> None:
    fitted = Response([Observation(4.0**k, loss) for k, loss in enumerate(losses)], Noise(sd)).fit()
    narrow, wide = fitted.interval(0.6), fitted.interval(0.95)
    assert wide.low <= narrow.low <= narrow.high <= wide.high


# Coverage: synthetic studies as the search makes them.


class Study:
    """A true optimum, a response around it, and noise; trials are run as the search's first stages do.

    The excess an octave away is 0.2 to 6 times the noise. Symmetric: a parabola. Cliff: 3 to 10 times as
    steep above, and diverging 1.5 to 4 octaves above the optimum. In half of them the low side levels off.
    """

    def __init__(self, kind: str, rng: np.random.Generator) -> None:
        self.rng, self.sd = rng, 10 ** rng.uniform(-3, -1)
        self.curvature = self.sd * 2 ** rng.uniform(math.log2(0.2), math.log2(6))
        self.best, self.floor = 10 ** rng.uniform(-4, -1), rng.uniform(0, 3)
        self.plateau = rng.uniform(6, 10) if rng.random() < 0.5 else math.inf
        self.steepness = rng.uniform(3, 10) if kind == "cliff" else 1.0
        self.edge = self.best * 2 ** rng.uniform(1.5, 4) if kind == "cliff" else math.inf
        self.trials: list[Observation] = []
        lrs = int(rng.integers(5, 8))
        start = math.log2(self.best) - rng.uniform(1.5, 2 * lrs - 3.5)
        for k in range(lrs):
            self.run(2 ** (start + 2 * k))

    def run(self, lr: float, seed: int = 0) -> None:
        u = math.log2(lr / self.best)
        excess = self.steepness * u**2 if u > 0 else u**2 / (1 + (u / self.plateau) ** 2)
        value = self.floor + self.curvature * excess + self.sd * float(self.rng.normal())
        self.trials.append(Observation(lr, None if lr > self.edge else value, seed, diverged=lr > self.edge))

    def result(self) -> Response:
        """Extends the edges, replicates the best, then tries vertices or midpoints."""
        for _ in range(3):
            side = (found := Response(self.trials)).needs_extension()
            if side is not None:
                self.run(found.tried[0] / 4 if side == "low" else found.tried[-1] * 4)
        best = Response(self.trials).best_lr
        for seed in (1, 2):
            self.run(best, seed)
        fine = int(self.rng.integers(2, 5))
        while fine > 0:
            found = Response(self.trials)
            fresh = [lr for lr in found.vertex().lrs if np.abs(np.log2(found.lrs / lr)).min() > 0.1]
            if not fresh:
                fresh = [found.best_lr * 2 ** self.rng.uniform(-1, 1)]
            for lr in fresh[:fine]:
                self.run(lr)
                fine -= 1
        return Response(self.trials)


@pytest.mark.parametrize("kind", ["symmetric", "cliff"])
def test_the_interval_covers_the_optimum_in_about_90_percent_of_500_studies(kind: str) -> None:
    rng = np.random.default_rng(20_240 if kind == "cliff" else 10_240)
    covered, octaves = [], []
    for _ in range(500):
        study = Study(kind, rng)
        interval = study.result().fit().interval()
        covered.append(interval.low <= study.best <= interval.high)
        octaves.append(interval.octaves)
    said = f"{kind}: covered in {np.mean(covered):.1%}, median width {np.median(octaves):.2f} octaves"
    print(said)
    assert 0.86 <= np.mean(covered) <= 0.94, said
    assert np.median(octaves) < 1.5, said


def followed(rng: np.random.Generator, *, is_expected: bool) -> tuple[Interval, float]:
    """A decayed schedule as the search follows it, octave by octave from where its best is expected: the
    interval and the true optimum, which lies 0.8 octaves from there on average.
    """
    start = 0.05
    best = start * 2 ** (0.8 * float(rng.normal()))
    curvature = 2 ** rng.uniform(math.log2(0.2), math.log2(6))
    trials: list[Observation] = []

    def run(lr: float, seed: int = 0) -> None:
        loss = curvature * math.log2(lr / best) ** 2 + float(rng.normal())
        trials.append(Observation(lr, loss, seed))

    def found() -> Response:
        return Response(trials, None, start if is_expected else None)

    run(start)
    run(2 * start)
    while (side := found().needs_extension()) is not None:
        run(found().tried[0] / 2 if side == "low" else found().tried[-1] * 2)
    chosen = found().fit().lr
    for seed in range(1, 4):
        run(chosen, seed)
    return found().fit().interval(), best


def test_an_expected_lr_closes_intervals_that_still_cover_the_optimum() -> None:
    covered, closed = {}, {}
    for is_expected in (False, True):
        rng = np.random.default_rng(30_240)
        studies = [followed(rng, is_expected=is_expected) for _ in range(300)]
        covered[is_expected] = np.mean(
            [(i.low_open or i.low <= best) and (i.high_open or best <= i.high) for i, best in studies]
        )
        closed[is_expected] = np.mean([[not i.low_open, not i.high_open] for i, _ in studies])
    said = f"covered: {covered}, ends that are closed: {closed}"
    assert covered[True] >= 0.9, said
    assert closed[True] > 0.6 > 0.4 > closed[False], said


# Bad input.


@pytest.mark.parametrize(
    ("trials", "argument"),
    [
        ([], "observations"),
        ([Observation(0.0, 1.0)], "lr"),
        ([Observation(math.nan, 1.0)], "lr"),
        ([Observation(0.1, math.nan)], "objective"),
        ([Observation(0.1, math.inf)], "objective"),
        ([Observation(0.1, None)], "objective"),
    ],
)
def test_bad_trials_are_refused(trials: list[Observation], argument: str) -> None:
    with pytest.raises(InputError) as caught:
        Response(trials)
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    "call",
    [
        lambda r: r.fit().interval(0.4),
        lambda r: r.fit().interval(1.0),
        lambda r: r.fit().tolerance(0.0),
        lambda r: r.fit().tolerance(math.nan),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[Response], object]) -> None:
    with pytest.raises(InputError):
        call(response(parabola(0.01)))


@pytest.mark.parametrize("call", [Response.fit, Response.vertex])
def test_where_all_diverged_there_is_nothing_to_fit(call: Callable[[Response], object]) -> None:
    with pytest.raises(InputError, match="all diverged"):
        call(response(parabola(1.0), [], diverged=[0.1, 1.0]))


def test_a_plateau_far_below_the_best_does_not_bend_the_fit() -> None:
    losses = [0.636892, 0.636878, 0.636733, 0.635281, 0.619929, 0.410107, 0.082314]
    fitted = Response([Observation(10.0 ** (k - 6), loss) for k, loss in enumerate(losses)]).fit()
    assert fitted.lr == 1.0
    assert fitted.interval() == Interval(0.1, 1.0, 0.9, low_open=False, high_open=True)
    assert fitted.tolerance(0.003) == Tolerance(1.0, 1.0, low_open=False, high_open=True)


@given(SPREAD_OUT)
@PROPERTY
def test_the_chosen_lr_lies_between_the_neighbours_of_the_best_tried(losses: list[float]) -> None:
    response = Response([Observation(4.0**k, loss) for k, loss in enumerate(losses)])
    assert response.best_lr / 4.001 <= response.fit().lr <= response.best_lr * 4.001
