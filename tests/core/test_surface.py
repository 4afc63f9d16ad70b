"""The response surface on trainings with known answers, and against a Gaussian process written anew."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri
from sklearn.gaussian_process.kernels import Matern

from lrsearch.core import surface as module
from lrsearch.core.curve import Array
from lrsearch.core.family import CONSTANT, Family, family_of
from lrsearch.core.surface import Observation, Place, Surface
from lrsearch.errors import InputError

WAY = 2.0
LINEAR, WSD = family_of({"name": "linear"}), family_of({"name": "wsd"})
WARM = {"name": "warmup", "inner": {"name": "constant"}, "fraction": 0.05}
WARMED, WARMED_LINEAR = family_of(WARM), family_of({**WARM, "inner": {"name": "linear"}})
BEST = 0.01
GRID = [BEST * 2.0**k for k in (-4, -2, 0, 2)]
FINE = [BEST * 2 ** (k / 8) for k in range(-32, 41)]


def bowl(lr: float, best: float = BEST) -> float:
    """A loss of 2 % of the way an octave from the best lr."""
    return 0.3 + 0.02 * WAY * math.log2(lr / best) ** 2


def trained(lrs: Sequence[float], family: Family = CONSTANT, best: float = BEST) -> list[Observation]:
    return [Observation(lr, bowl(lr, best), family=family) for lr in lrs]


def places(lrs: Sequence[float], family: Family = CONSTANT) -> list[Place]:
    return [Place(lr, family) for lr in lrs]


def lowest(surface: Surface, family: Family = CONSTANT) -> float:
    """The lr of the lowest expected loss."""
    return FINE[int(surface.losses(places(FINE, family)).argmin())]


def octaves(lr: float, other: float) -> float:
    return abs(math.log2(lr / other))


NOISY = [
    replace(o, objective=bowl(o.lr, BEST * (1 if o.family == CONSTANT else 3)) + 0.01 * e)
    for o, e in zip(
        [*trained([*GRID, 1.5 * BEST, BEST]), *trained([BEST, 3 * BEST, 8 * BEST], LINEAR)],
        np.random.default_rng(0).standard_normal(9).tolist(),
        strict=True,
    )
]
DIVERGED = Observation(BEST * 16, None, diverged=True)
STUDY = [*NOISY, DIVERGED]
"""Constant and linear trainings with noise, and one that diverged."""


# --- what is expected --------------------------------------------------------------------------------------


def test_a_parabola_without_noise_is_followed_between_its_trainings() -> None:
    between = [BEST * 2.0**k for k in (-3, -1, -0.5, 0.5, 1)]
    found = Surface(trained(GRID), WAY).losses(places(between))
    assert found == pytest.approx([bowl(lr) for lr in between], abs=0.01 * WAY)


@pytest.mark.parametrize("best", [0.006, 0.01, 0.016])
def test_the_lowest_loss_of_a_parabola_is_expected_at_its_best(best: float) -> None:
    assert octaves(lowest(Surface(trained(GRID, best=best), WAY)), best) < 0.2


def test_a_training_that_diverged_raises_what_is_expected_there() -> None:
    seen, at = trained(GRID[:3]), places([BEST * 4])
    without, diverged = (
        Surface(s, WAY).losses(at)[0] for s in (seen, [*seen, Observation(BEST * 4, None, diverged=True)])
    )
    assert diverged > without


@pytest.mark.parametrize("above", [2, 4, 8, 16])
@pytest.mark.parametrize("seen", [trained(GRID), NOISY], ids=["bowl", "noisy"])
def test_a_training_that_diverged_never_pulls_the_optimum_towards_it(
    seen: list[Observation], above: float
) -> None:
    diverged = [*seen, Observation(BEST * above, None, seed=1, diverged=True)]
    assert lowest(Surface(diverged, WAY)) <= lowest(Surface(seen, WAY))


@pytest.mark.parametrize("above", [2, 4, 8, 16])
def test_where_the_best_lr_is_the_last_before_a_divergence_the_optimum_stays_with_it(above: float) -> None:
    seen = [*trained(GRID[:3]), Observation(BEST * above, None, diverged=True)]
    assert octaves(lowest(Surface(seen, WAY)), BEST) < 0.5


@pytest.mark.parametrize("off", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("lr", [GRID[1], BEST, GRID[3]])
def test_one_loss_that_is_far_too_high_hardly_moves_the_optimum(lr: float, off: float) -> None:
    seen = trained([BEST * 2.0**k for k in range(-4, 4)])
    outlier = Observation(lr, bowl(lr) + off * WAY, seed=1)
    assert octaves(lowest(Surface([*seen, outlier], WAY)), BEST) < 0.5


@pytest.mark.parametrize("lr", [GRID[1], GRID[3]])
def test_one_loss_that_is_too_low_hardly_moves_the_optimum(lr: float) -> None:
    seen = trained([BEST * 2.0**k for k in range(-4, 4)])
    seen += [replace(o, seed=1) for o in seen]
    outlier = Observation(lr, 0.2, seed=2)
    assert octaves(lowest(Surface([*seen, outlier], WAY)), BEST) <= 0.25


def test_a_family_that_was_never_tried_is_expected_where_the_others_shift_says() -> None:
    shifted = Surface([*trained(GRID), *trained([4 * lr for lr in GRID], LINEAR, best=4 * BEST)], WAY)
    still = Surface([*trained(GRID), *trained(GRID, LINEAR)], WAY)
    assert octaves(lowest(shifted, WSD), 4 * BEST) < 0.5
    assert octaves(lowest(still, WSD), BEST) < 0.5


def test_what_a_warmup_gains_under_one_family_is_expected_under_another() -> None:
    plain = [*trained(GRID), *trained(GRID, LINEAR)]
    better = [replace(o, objective=bowl(o.lr) - 0.02, family=WARMED) for o in plain[:4]]
    gain, _ = Surface([*plain, *better], WAY).difference(Place(BEST, LINEAR), Place(BEST, WARMED_LINEAR))
    assert 0.01 < gain < 0.03


def test_all_four_of_two_families_with_and_without_warmup_are_told_of() -> None:
    families = (CONSTANT, LINEAR, WARMED, WARMED_LINEAR)
    surface = Surface([o for family in families for o in trained(GRID, family)], WAY)
    for family in families:
        assert octaves(lowest(surface, family), BEST) < 0.2


def test_a_difference_is_that_of_the_losses_and_its_mirror() -> None:
    surface, one, other = Surface(STUDY, WAY), Place(BEST), Place(4 * BEST, LINEAR)
    mean, sd = surface.difference(one, other)
    assert mean == pytest.approx(np.subtract(*surface.losses([one, other])))
    assert surface.difference(other, one) == pytest.approx((-mean, sd))
    assert surface.difference(one, one) == pytest.approx((0, 0), abs=1e-6)


def test_more_seeds_make_a_difference_surer() -> None:
    more = [
        replace(o, seed=o.seed + k, objective=(o.objective or 0) + 0.005 * (-1) ** k)
        for k in range(4)
        for o in NOISY
    ]
    one, other = Place(BEST), Place(3 * BEST, LINEAR)
    (_, few), (_, many) = (Surface(seen, WAY).difference(one, other) for seen in (NOISY, more))
    assert many < few


def test_the_quantiles_of_the_optimum_rise_and_hold_it() -> None:
    low, middle, high = Surface(trained(GRID), WAY).optimum(places(FINE), [0.05, 0.5, 0.95])
    assert FINE[0] <= low < middle < high <= FINE[-1]
    assert low <= BEST <= high


# --- against a Gaussian process of its own -----------------------------------------------------------------

CURVATURE, NOISE, SHIFT = 0.02, 0.005, 1.0


def integrate_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The knowledge gradient is averaged over a thousand results of a training."""
    monkeypatch.setattr(module, "_NODES", ndtri((np.arange(1001) + 0.5) / 1001))
    monkeypatch.setattr(module, "_WEIGHTS", np.full(1001, 1 / 1001))


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """One point of the grid, and normal noise: the surface is a plain Gaussian process."""
    monkeypatch.setattr(module, "_GRID", np.array([[CURVATURE, NOISE, SHIFT]]))
    monkeypatch.setattr(module, "_PRIOR", np.zeros(1))
    monkeypatch.setattr(module, "_FREEDOM", 1e12)


class Dense:
    """The same by the formulas of the docstring, place by place; trainings near the best alone."""

    def __init__(self, seen: Sequence[Observation]) -> None:
        self.losses = np.array([o.objective for o in seen], dtype=float)
        self.seen, self.x0 = [o.place for o in seen], math.log2(seen[int(self.losses.argmin())].lr)
        self.y = (self.losses - self.losses.min()) / WAY

    def u(self, place: Place) -> float:
        return math.log2(place.lr) - self.x0 - SHIFT * place.family.decays

    def kernel(self, one: Place, other: Place) -> float:
        u, v = self.u(one), self.u(other)
        wiggle = float(Matern(length_scale=1.25, nu=2.5)([[u]], [[v]])[0, 0])
        found = (2.0**2 * u * v) + (0.25**2 * u**2 * v**2) + 0.6**2 * wiggle
        found += 2.0**2 * (one.family.decays and other.family.decays)
        if one.family.decays and one.family.name == other.family.name:
            found += 0.5**2 + 0.15**2 * wiggle
        if one.family.warmup and other.family.warmup:
            found += 0.5**2 + 0.15**2 * wiggle
        return 1 + CURVATURE**2 * found

    def gram(self, ones: Sequence[Place], others: Sequence[Place]) -> Array:
        return np.array([[self.kernel(one, other) for other in others] for one in ones])

    def prior(self, ones: Sequence[Place]) -> Array:
        return np.array([CURVATURE * self.u(one) ** 2 / 2 for one in ones])

    def told(self, to: Sequence[Place], seen: Sequence[Place], y: Array) -> Array:
        """The mean at places, of values y at those seen, shape (n, ...)."""
        noisy = self.gram(seen, seen) + NOISE**2 * np.eye(len(seen))
        return self.prior(to)[:, None] + self.gram(to, seen) @ np.linalg.solve(
            noisy, y - self.prior(seen)[:, None]
        )

    def posterior(self, to: Sequence[Place]) -> tuple[Array, Array]:
        noisy = self.gram(self.seen, self.seen) + NOISE**2 * np.eye(len(self.seen))
        shared = self.gram(to, self.seen)
        covariance = self.gram(to, to) - shared @ np.linalg.solve(noisy, shared.T)
        return self.told(to, self.seen, self.y[:, None])[:, 0], covariance


NEAR = [
    Observation(lr, 0.3 + WAY * loss, family=family)
    for lr, loss, family in [
        (0.005, 0.02, CONSTANT),
        (0.01, 0.001, CONSTANT),
        (0.02, 0.03, CONSTANT),
        (0.02, 0.0, LINEAR),
        (0.05, 0.01, LINEAR),
        (0.02, 0.01, WARMED),
        (0.04, 0.005, WARMED_LINEAR),
    ]
]
ANYWHERE = [
    *places([0.003, 0.012, 0.1]),
    *places([0.01, 0.03], LINEAR),
    *(Place(0.03, f) for f in (WSD, WARMED, WARMED_LINEAR)),
]


@pytest.mark.usefixtures("single")
def test_means_and_covariances_are_those_of_the_formulas() -> None:
    surface = Surface(NEAR, WAY)
    mean, covariance = Dense(NEAR).posterior(ANYWHERE)
    assert surface.losses(ANYWHERE) == pytest.approx(0.3 + WAY * mean)
    for k, m in itertools.combinations(range(len(ANYWHERE)), 2):
        sd = math.sqrt(covariance[k, k] + covariance[m, m] - 2 * covariance[k, m])
        expected = (WAY * (mean[k] - mean[m]), WAY * sd)
        assert surface.difference(ANYWHERE[k], ANYWHERE[m]) == pytest.approx(expected)


@pytest.mark.usefixtures("single")
def test_the_knowledge_gradient_is_what_a_training_more_is_worth_on_average(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trainings are drawn, the Gaussian process is made anew with each, and its lowest mean is taken."""
    integrate_exactly(monkeypatch)
    dense = Dense(NEAR)
    mean, covariance = dense.posterior(ANYWHERE)
    half = np.random.default_rng(1).standard_normal(20_000)
    worth = []
    for k, place in enumerate(ANYWHERE):
        drawn = mean[k] + math.sqrt(covariance[k, k] + NOISE**2) * np.concatenate([half, -half])
        y = np.vstack([np.repeat(dense.y[:, None], len(drawn), axis=1), drawn])
        after = dense.told(ANYWHERE, [*dense.seen, place], y)
        worth.append(WAY * (mean.min() - after.min(0).mean()))
    found = Surface(NEAR, WAY).knowledge_gradient(ANYWHERE, ANYWHERE)
    assert found == pytest.approx(worth, rel=0.05, abs=0.01 * max(worth))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_worth_most_by_nine_numbers_is_worth_nearly_most_by_a_thousand(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    seen = [replace(o, objective=(o.objective or 0) + 0.02 * rng.standard_normal()) for o in NOISY]
    at, surface = [*places(FINE[::4]), *places(FINE[::4], LINEAR)], Surface(seen, WAY)
    roughly = surface.knowledge_gradient(at, at)
    integrate_exactly(monkeypatch)
    exactly = surface.knowledge_gradient(at, at)
    assert exactly[roughly.argmax()] > 0.97 * exactly.max()
    assert roughly == pytest.approx(exactly, abs=0.15 * float(exactly.max()))


# --- the knowledge gradient --------------------------------------------------------------------------------

KNOWN: dict[str, list[Observation]] = {"three": trained(GRID[:3]), "study": STUDY, "one": trained([BEST])}


@pytest.mark.parametrize("seen", KNOWN.values(), ids=KNOWN)
def test_no_training_is_worth_less_than_nothing(seen: list[Observation]) -> None:
    everywhere = [*places(FINE[::4]), *places(FINE[::4], LINEAR), *places(FINE[::4], WARMED_LINEAR)]
    assert Surface(seen, WAY).knowledge_gradient(everywhere, everywhere).min() >= -1e-9


def test_a_training_far_beyond_a_divergence_is_worth_little() -> None:
    near, far = Surface(STUDY, WAY).knowledge_gradient(places([2 * BEST, BEST * 512]), places(FINE))
    assert far < 0.2 * near


def test_what_a_training_is_worth_does_not_depend_on_what_else_is_asked() -> None:
    surface, answers = Surface(trained(GRID), WAY), places(FINE, WSD)
    alone = surface.knowledge_gradient(places([2 * BEST], LINEAR), answers)
    beside = surface.knowledge_gradient(places([2 * BEST], LINEAR) + places([2 * BEST], WSD), answers)
    assert alone[0] == pytest.approx(beside[0])
    assert beside[0] < beside[1]


# --- what does not matter ----------------------------------------------------------------------------------


def told(seen: Sequence[Observation], way: float = WAY, factor: float = 1.0) -> dict[str, Array]:
    """What a surface says: losses and their differences, worth, and the optimum."""
    surface = Surface(seen, way)
    at = [Place(factor * lr, f) for lr in FINE[::6] for f in (CONSTANT, LINEAR, WSD, WARMED)]
    return {
        "losses": surface.losses(at),
        "differences": np.array([surface.difference(at[0], place) for place in at[1:]]),
        "worth": surface.knowledge_gradient(at, at),
        "optimum": surface.optimum([Place(factor * lr, LINEAR) for lr in FINE], [0.05, 0.5, 0.95]) / factor,
    }


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-5, abs=1e-7 * float(np.ptp(expected["losses"]))), (
            name
        )


def changed(change: Callable[[float], float]) -> list[Observation]:
    return [o if o.objective is None else replace(o, objective=change(o.objective)) for o in STUDY]


def test_the_zero_of_the_losses_does_not_matter() -> None:
    plain, moved = told(STUDY), told(changed(lambda loss: loss - 7))
    assert_same({**moved, "losses": moved["losses"] + 7}, plain)


@pytest.mark.parametrize("scale", [1e-4, 300.0])
def test_the_unit_of_the_losses_does_not_matter(scale: float) -> None:
    found = told(changed(lambda loss: scale * loss), scale * WAY)
    assert_same({name: v if name == "optimum" else v / scale for name, v in found.items()}, told(STUDY))


@pytest.mark.parametrize("factor", [1e-4, 7.0])
def test_lrs_that_are_all_higher_by_a_factor_move_the_answers_by_it(factor: float) -> None:
    assert_same(told([replace(o, lr=factor * o.lr) for o in STUDY], factor=factor), told(STUDY))


def test_the_order_of_the_trainings_does_not_matter() -> None:
    assert_same(told(STUDY[::-1]), told(STUDY))


def test_nor_does_it_where_the_best_loss_was_reached_twice() -> None:
    seen = [Observation(0.01, 0.3), Observation(0.04, 0.3), Observation(0.16, 0.5)]
    assert_same(told(seen[::-1]), told(seen))


def test_the_same_trainings_say_the_same_bit_for_bit() -> None:
    first, second = told(STUDY), told(list(STUDY))
    assert {name: v.tolist() for name, v in first.items()} == {name: v.tolist() for name, v in second.items()}


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "way", "argument"),
    [
        ([], WAY, "seen"),
        ([DIVERGED], WAY, "seen"),
        ([Observation(0.1, None)], WAY, "seen"),
        ([Observation(0.0, 1.0)], WAY, "lr"),
        ([Observation(math.inf, 1.0)], WAY, "lr"),
        ([Observation(0.1, math.nan)], WAY, "objective"),
        ([Observation(0.1, 1.0), Observation(0.2, math.inf)], WAY, "objective"),
        ([Observation(0.1, 1.0)], 0.0, "way"),
        ([Observation(0.1, 1.0)], math.nan, "way"),
    ],
)
def test_bad_input_is_refused_by_name(seen: list[Observation], way: float, argument: str) -> None:
    with pytest.raises(InputError) as caught:
        Surface(seen, way)
    assert caught.value.argument == argument


def test_the_loss_of_a_training_that_diverged_is_not_read() -> None:
    seen = [*NOISY, replace(DIVERGED, objective=math.nan)]
    assert (
        Surface(seen, WAY).losses(places(GRID)).tolist() == Surface(STUDY, WAY).losses(places(GRID)).tolist()
    )
