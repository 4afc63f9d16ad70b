"""Final loss against log lr: the best, where to try next, and what can be said of the optimum.

Objectives are losses here: lower is better. Whoever maximises a metric hands over its negative. A diverged
trial has no loss: it bounds the lr from above (the cliff) and enters no fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from lrsearch.core.curve import Array
from lrsearch.core.posterior import STEEPEST, Means, posterior, shape
from lrsearch.core.stats import Noise
from lrsearch.core.stats import noise as pooled_noise
from lrsearch.errors import InputError

Side = Literal["low", "high"]

_CLIFF = 3.0
"""Neighbours' excesses further apart than this are no parabola's."""
_FAR, _BEYOND_NOISE = 0.55, 6.0
"""Past an excess of this share of the losses' range, and of so many standard deviations between seeds, a
response may level off: it tells no shape any more. Above the best such an lr is as good as diverged."""
_FEWEST_LRS = 3
"""With fewer the losses have no shape: a response counts as flat, unless its optimum is expected at an lr."""
_CURVE_POINTS = 121


@dataclass(frozen=True)
class Observation:
    """One trial: its lr, its seed, and its final objective, which is not read where it diverged."""

    lr: float
    objective: float | None
    seed: int = 0
    diverged: bool = False


@dataclass(frozen=True)
class Vertex:
    """The lrs to try next, lowest first, and what they are.

    ``parabola``: the vertex through the best and its neighbours; ``cliff``: both midpoints in log lr;
    ``edge``: the midpoint to the only neighbour, none where there is a single lr.
    """

    kind: Literal["parabola", "cliff", "edge"]
    lrs: tuple[float, ...]


@dataclass(frozen=True)
class Interval:
    """The confidence set of the optimal lr; a side is open where it may lie beyond the tested lrs."""

    low: float
    high: float
    level: float
    low_open: bool
    high_open: bool

    @property
    def octaves(self) -> float:
        """Its width, log2(high / low)."""
        return math.log2(self.high / self.low)


@dataclass(frozen=True)
class Tolerance:
    """The lrs whose fitted objective stays within a margin of the best; open where all tested ones do."""

    low: float
    high: float
    low_open: bool
    high_open: bool


class Response:
    """Final objective against lr, replicates of an lr averaged.

    `lrs`, `means`, `counts`: the lrs below the cliff, ascending, with their mean objective and number of
    trials, each of shape (n,). `cliff`: the lowest lr above the best one on which a seed diverged, or all but
    nothing was learned; None without one. `noise` between the seeds of one lr, pooled over the lrs, is what
    was measured elsewhere where there are no replicates here; `expected` is where another schedule's best lr
    lets one look for the optimum. Raises InputError for no observation, an lr that is not above 0 and finite,
    and an objective that is not finite though the trial did not diverge.
    """

    def __init__(
        self, observations: Sequence[Observation], noise: Noise | None = None, expected: float | None = None
    ) -> None:
        _check(observations)
        self.expected = expected
        diverged = {o.lr for o in observations if o.diverged}
        groups: dict[float, list[float]] = {}
        for o in sorted(observations, key=lambda o: (o.lr, o.seed)):
            if o.lr not in diverged and o.objective is not None:
                groups.setdefault(o.lr, []).append(o.objective)
        self.tried = tuple(sorted({o.lr for o in observations}))
        self.noise = pooled_noise(list(groups.values())) or noise
        means = {lr: float(np.mean(group)) for lr, group in groups.items()}
        best = min(means, key=lambda lr: (means[lr], lr), default=math.inf)
        lost = diverged | _walls(means, best, self.noise)
        self.cliff = min((lr for lr in lost if lr > best), default=None)
        groups = {lr: group for lr, group in groups.items() if self.cliff is None or lr < self.cliff}
        self.groups = tuple(tuple(group) for group in groups.values())
        self.lrs: Array = np.array(list(groups), dtype=np.float64)
        self.means: Array = np.array([means[lr] for lr in groups], dtype=np.float64)
        self.counts: Array = np.array([len(group) for group in self.groups], dtype=np.float64)

    @property
    def best_lr(self) -> float:
        """The tried lr of the lowest mean objective, the lowest such. The fit's `lr` is the better choice."""
        return float(self.lrs[self._best])

    @property
    def has_equal_means(self) -> bool:
        """All surviving lrs have the same mean objective, up to rounding."""
        return len(self.means) > 1 and bool(np.ptp(self.means) <= 1e-12 * np.abs(self.means).max())

    def needs_extension(self) -> Side | None:
        """The side on which the best lr is the last one tried, or None.

        A diverged neighbour is a bound, so needs no extension; where all diverged it is ``low``. Where all
        lrs have the same mean an extension would find nothing: None.
        """
        if not self.groups:
            return "low"
        if self.has_equal_means:
            return None
        if self.best_lr == self.tried[0]:
            return "low"
        return "high" if self.best_lr == self.tried[-1] else None

    def vertex(self) -> Vertex:
        """Where to try next, from the best lr and its neighbours in x = log lr.

        With excesses ``e`` over the best at distances ``d`` below and above it, the parabola's vertex is
        ``x + (e_low * d_high² - e_high * d_low²) / (2 * (e_low * d_high + e_high * d_low))``. Where one
        excess is more than three times the other the response is a cliff, and so it is where the upper
        neighbour diverged.
        """
        i = self._best
        x = np.log(self.lrs)
        below = float(x[i - 1]) if i > 0 else None
        above = float(x[i + 1]) if i + 1 < len(x) else None
        if above is None and self.cliff is not None:
            above, e_high = math.log(self.cliff), math.inf
        elif above is not None:
            e_high = float(self.means[i + 1] - self.means[i])
        centre = float(x[i])
        if below is None or above is None:
            inner = [v for v in (below, above) if v is not None]
            return Vertex("edge", tuple(math.exp((centre + v) / 2) for v in inner))
        e_low = float(self.means[i - 1] - self.means[i])
        if e_low == e_high == 0:
            return Vertex("parabola", (math.exp(centre),))
        if max(e_low, e_high) > _CLIFF * min(e_low, e_high):
            return Vertex("cliff", (math.exp((below + centre) / 2), math.exp((centre + above) / 2)))
        d_low, d_high = centre - below, above - centre
        shift = (e_low * d_high**2 - e_high * d_low**2) / (2 * (e_low * d_high + e_high * d_low))
        return Vertex("parabola", (math.exp(centre + shift),))

    def near_best(self) -> Means:
        """What is fitted: all but the ends of the range where every lr is far worse than the best.

        Far from the best, a training leaves the loss where it was, or spoils it: no curve through such points
        has the valley's shape. The first far one on each side stays.
        """
        first, last = self._near
        kept = slice(max(first - 1, 0), last + 2)
        cliff = self.cliff if last + 2 >= len(self.lrs) else None
        return Means(self.lrs[kept], self.means[kept], self.counts[kept], cliff, self.expected)

    def far_bounds(self) -> tuple[float, float]:
        """The nearest lrs on both sides that are far worse than the best; 0 and infinity where none is.

        Two lrs alone say of neither that it is far.
        """
        first, last = self._near
        low = float(self.lrs[first - 1]) if first > 0 else 0.0
        return low, float(self.lrs[last + 1]) if last + 1 < len(self.lrs) else math.inf

    @cached_property
    def _near(self) -> tuple[int, int]:
        """Indices of the lowest and the highest lr that is not far worse than the best."""
        self._require_survivors()
        excesses = _excesses(dict(zip(self.lrs, self.means, strict=True)), self.noise)
        near = [k for k, excess in enumerate(excesses.values()) if excess <= 1]
        return near[0], near[-1]

    def fit(self) -> FittedResponse:
        """The response with its uncertainty; InputError where every lr diverged."""
        self._require_survivors()
        return FittedResponse(self)

    @property
    def _best(self) -> int:
        self._require_survivors()
        return int(np.argmin(self.means))

    def _require_survivors(self) -> None:
        if not self.groups:
            raise InputError("observations", self.tried, "all diverged", "try lower lrs")


class FittedResponse:
    """What a response says of its optimum x0, in x = log2 lr: a posterior summed over a grid, nothing drawn.

    ``y_i = m + A * s(x_i - x0) + e_i``, where s is a power of the distance on either side, 1/2 to 16 times as
    steep on the high side: parabolas, kinks, and walls of power 4. ``e_i`` has the variance
    ``sd² / n_i + (k * A * s_i * (x_i - x0))²``: the noise between seeds, and an error of the shape, k = 0.002
    or 0.25 an octave. m is flat, log sd flat unless measured or given, A / sd even in log, x0 even from two
    octaves below the lowest lr to two above the highest, or to the cliff; where it is expected somewhere,
    Student's t around there, with 4 degrees of freedom and a scale of 0.7 octaves. m and A are integrated
    exactly, sd by Laplace's method. Shapes and weights are chosen so that 90% intervals hold the optimum in
    87% to 96% of synthetic studies of several kinds, the noise measured on three seeds; where it is known
    exactly, a cliff or a kink gets 78% to 84%.
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        self._lowest, self._highest = response.lrs[0], response.lrs[-1]
        near = response.near_best()
        self._has_shape = len(near.lrs) >= _FEWEST_LRS
        fits = self._has_shape or (len(near.lrs) > 1 and near.expected is not None)
        fits = fits and not response.has_equal_means
        self._posterior = posterior(near, response.noise) if fits else None

    @cached_property
    def lr(self) -> float:
        """The lr of the lowest fitted objective between the neighbours of the best tried lr.

        The fit weighs every place where the optimum may lie, so that a steep side is kept away from. With
        fewer than three lrs to fit it is the best tried one.
        """
        if self._posterior is None or not self._has_shape:
            return self._response.best_lr
        return float(self._curve_lrs[self._at])

    @property
    def expected_gain(self) -> float:
        """Fitted objective at `lr` minus that at the true optimum, wherever it lies: all that further trials
        could gain on average, in the objective's unit. Below the noise they are not worth their cost.
        """
        level = np.inf if self._posterior is None else self._posterior.level
        return max(0.0, float(self._curve[self._at] - level))

    def objective(self, lrs: ArrayLike) -> Array:
        """Fitted (posterior mean) objective at `lrs`, any shape, in the objective's unit."""
        x = np.log2(np.asarray(lrs, dtype=np.float64))
        if self._posterior is None:
            return np.full(x.shape, self._response.means.mean())
        shapes = shape(x[..., None] - self._posterior.optima)
        return np.asarray(
            self._posterior.level + np.einsum("...gs,gs->...", shapes, self._posterior.amplitudes)
        )

    def interval(self, level: float = 0.9) -> Interval:
        """The central set that holds the optimal lr with probability `level`, from 0.5 to 0.99.

        It ends where the tested range does, open if it would reach further; above, it may reach up to the
        cliff, which no optimum passes. Where there is nothing to fit it reaches to the lrs that are far worse
        or diverge, and on a flat response it is the tested range, open at both sides.
        """
        if not 0.5 <= level <= 0.99:
            raise InputError("level", level, "is out of range", "give a number from 0.5 to 0.99, e.g. 0.9")
        cliff = self._response.cliff
        fitted = self._posterior
        low, high = self._response.far_bounds() if fitted is None else fitted.central(level)
        if not self._has_shape:  # the choice is the best tried lr then, wherever the optimum was expected
            low, high = min(low, self.lr), max(high, self.lr)
        ceiling = self._highest if cliff is None else cliff
        return Interval(
            low=float(min(max(low, self._lowest), ceiling)),
            high=float(max(min(high, ceiling), self._lowest)),
            level=level,
            low_open=bool(low < self._lowest),
            high_open=bool(cliff is None and high > self._highest),
        )

    def tolerance(self, delta: float) -> Tolerance:
        """The lrs around `lr`, within the tested range, whose fitted objective is at most `delta` above its.

        `delta` is in the objective's unit. Ends are interpolated in log lr.
        """
        if not (math.isfinite(delta) and delta > 0):
            raise InputError("delta", delta, "is no margin", "give a finite number above 0")
        at = self._at
        x, excess = np.log2(self._curve_lrs), self._curve - self._curve[at]
        outside = excess > delta

        def crossing(inner: int, outer: int) -> float:
            return float(2.0 ** np.interp(delta, excess[[inner, outer]], x[[inner, outer]]))

        below, above = np.flatnonzero(outside[:at]), np.flatnonzero(outside[at:]) + at
        if self._posterior is None:
            far_low, far_high = self._response.far_bounds()
            near = [lr for lr in self._response.lrs if far_low < lr < far_high]
            open_above = math.isinf(far_high) and self._response.cliff is None
            return Tolerance(float(near[0]), float(near[-1]), low_open=far_low == 0, high_open=open_above)
        return Tolerance(
            low=crossing(below[-1] + 1, below[-1]) if len(below) else float(self._lowest),
            high=crossing(above[0] - 1, above[0]) if len(above) else float(self._highest),
            low_open=not len(below),
            high_open=not len(above) and self._response.cliff is None,
        )

    @cached_property
    def _curve_lrs(self) -> Array:
        return np.asarray(np.geomspace(self._lowest, self._highest, _CURVE_POINTS))

    @cached_property
    def _curve(self) -> Array:
        return self.objective(self._curve_lrs)

    @cached_property
    def _at(self) -> int:
        """The curve's lowest point between the neighbours of the best tried lr, the lowest such; where the
        best tried lr is the choice, its own.
        """
        lrs, best = self._response.lrs, self._response.best_lr
        if not self._has_shape:
            return int(np.argmin(np.abs(np.log(self._curve_lrs / best))))
        low, high = lrs[lrs < best][-1:], lrs[lrs > best][:1]
        inside = (self._curve_lrs >= (low[0] if len(low) else best) * (1 - 1e-9)) & (
            self._curve_lrs <= (high[0] if len(high) else best) * (1 + 1e-9)
        )
        return int(np.argmin(np.where(inside, self._curve, np.inf)))


def _walls(means: Mapping[float, float], best: float, noise: Noise | None) -> set[float]:
    """The lrs above the best that are far worse, and more steeply so than any shape of the fit could be."""
    below = max((lr for lr in means if lr < best), default=None)
    if below is None:
        return set()

    def steepness(lr: float) -> float:
        return (means[lr] - means[best]) / math.log2(lr / best) ** 2

    limit = STEEPEST * steepness(below)
    return {
        lr for lr, far in _excesses(means, noise).items() if lr > best and far > 1 and steepness(lr) > limit
    }


def _excesses(means: Mapping[float, float], noise: Noise | None) -> dict[float, float]:
    """By lr how far the mean is above the best, in units of what is far; 0 where there are too few to say."""
    if len(means) < _FEWEST_LRS:
        return dict.fromkeys(means, 0.0)
    best, worst = min(means.values()), max(means.values())
    far = max(_FAR * (worst - best), _BEYOND_NOISE * (0.0 if noise is None else noise.sd))
    return {lr: (mean - best) / far if far else 0.0 for lr, mean in means.items()}


def _check(observations: Sequence[Observation]) -> None:
    if not observations:
        raise InputError("observations", [], "is empty", "give at least one trial")
    for o in observations:
        if not (math.isfinite(o.lr) and o.lr > 0):
            raise InputError("lr", o.lr, "is no learning rate", "give a finite number above 0")
        if not o.diverged and (o.objective is None or not math.isfinite(o.objective)):
            mend = "give a finite number, or mark the trial as diverged"
            raise InputError("objective", o.objective, f"at lr {o.lr:.3g} is not finite", mend)
