"""Final loss against log lr: the best, where to try next, and what can be said of the optimum.

Objectives are losses here: lower is better. Whoever maximises a metric hands over its negative. A diverged
trial has no loss: it bounds the lr from above (the cliff) and enters no fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from lrsearch.core.curve import Array
from lrsearch.core.stats import Noise, noise
from lrsearch.errors import InputError

Side = Literal["low", "high"]

_CLIFF = 3.0
"""Neighbours' excesses further apart than this are no parabola's."""
_EXTENSION = 2.0
"""The optimum is looked for this many octaves beyond the tested lrs, so that a flat response is seen as open."""
_COARSE_STEP, _FINE_POINTS, _TAIL = 0.4, 40, 1e-4
"""Octaves between optima tried first; optima tried again where all but a tail of the probability lies."""
_CURVE_POINTS = 241
_REFERENCE = 2.0
"""Octaves from the optimum at which shapes of one amplitude agree: the coarse grid's step, a factor of 4."""
_AMPLITUDES = 4.0 ** np.arange(-2.5, 4.1)
"""Excess an octave from the optimum, in units of the noise, evenly spread in log."""
_SPREAD = 0.7
"""Relative standard deviation of the amplitude around each of these, so that they overlap."""
_DISCREPANCY = np.array([0.0, 0.25])
"""Relative error of the shape an octave away, growing with the distance: real responses are not powers."""
_KNOWN_DF = 1e6
_NOISE_FLOOR = 1e-4
"""Noise below this share of the losses' range is none."""


def _shapes() -> Array:
    """Rows of low coefficient, low power, high coefficient, high power, weight; weights sum to 1."""
    rows = []
    for low_power, high_power, step, weight in ((2, 2, 0.5, 0.5), (1, 1, 1.0, 1 / 6), (2, 4, 1.0, 1 / 3)):
        steepness = 2.0 ** np.arange(-1, 4.1, step)  # high side against low side, 1/2 to 16
        rows += [(r**-0.5, low_power, r**0.5, high_power, weight / len(steepness)) for r in steepness]
    return np.array(rows)


_SHAPES = _shapes()


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
    ``edge``: the midpoint to the only neighbour (none where there is a single lr); ``flat``: none.
    """

    kind: Literal["parabola", "cliff", "edge", "flat"]
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
    """The lrs whose fitted objective stays within a margin of the best; open where that reaches a tested end."""

    low: float
    high: float
    low_open: bool
    high_open: bool


class Response:
    """Final objective against lr, replicates of an lr averaged.

    `lrs`, `means`, `counts`: the lrs on which no seed diverged, ascending, with their mean objective and number of
    trials, each of shape (n,). `cliff`: the lowest diverged lr above the best one, or None; what survived above it is
    left out. Raises InputError for no observation, an lr that is not above 0 and finite, and an objective
    that is not finite though the trial did not diverge.
    """

    def __init__(self, observations: Sequence[Observation]) -> None:
        _check(observations)
        diverged = {o.lr for o in observations if o.diverged}
        groups: dict[float, list[float]] = {}
        for o in sorted(observations, key=lambda o: (o.lr, o.seed)):
            if o.lr not in diverged and o.objective is not None:
                groups.setdefault(o.lr, []).append(o.objective)
        self.tried = tuple(sorted({o.lr for o in observations}))
        best = min(groups, key=lambda lr: (np.mean(groups[lr]), lr), default=math.inf)
        self.cliff = min((lr for lr in diverged if lr > best), default=None)
        groups = {lr: group for lr, group in groups.items() if self.cliff is None or lr < self.cliff}
        self.groups = tuple(tuple(group) for group in groups.values())
        self.lrs: Array = np.array(list(groups), dtype=np.float64)
        self.means: Array = np.array([np.mean(group) for group in self.groups], dtype=np.float64)
        self.counts: Array = np.array([len(group) for group in self.groups], dtype=np.float64)

    @cached_property
    def noise(self) -> Noise | None:
        """Standard deviation between the seeds of one lr, pooled over the lrs; None without replicates."""
        return noise(self.groups)

    @property
    def best_lr(self) -> float:
        """The tried lr of the lowest mean objective, the lowest such. `FittedResponse.lr` is the better choice."""
        return float(self.lrs[self._best])

    @property
    def is_flat(self) -> bool:
        """Fewer than three lrs survived, or all of them have the same mean: nothing to fit."""
        return len(self.lrs) < 3 or bool(np.ptp(self.means) <= 1e-12 * np.abs(self.means).max())

    def needs_extension(self) -> Side | None:
        """The side on which the best lr is the last one tried, or None.

        A diverged neighbour is a bound, so needs no extension; where all diverged it is ``low``. Where all lrs have the
        same mean an extension would find nothing: None.
        """
        if not len(self.lrs):
            return "low"
        if len(self.lrs) > 1 and np.ptp(self.means) == 0:
            return None
        if self.best_lr == self.tried[0]:
            return "low"
        return "high" if self.best_lr == self.tried[-1] else None

    def vertex(self) -> Vertex:
        """Where to try next, from the best lr and its neighbours in x = log lr.

        With excesses ``e`` over the best at distances ``d`` below and above it, the parabola's vertex is
        ``x + (e_low * d_high² - e_high * d_low²) / (2 * (e_low * d_high + e_high * d_low))``. Where one excess is more than
        three times the other the response is a cliff, and so it is where the upper neighbour diverged.
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
            return Vertex("flat", ())
        if max(e_low, e_high) > _CLIFF * min(e_low, e_high):
            return Vertex("cliff", (math.exp((below + centre) / 2), math.exp((centre + above) / 2)))
        d_low, d_high = centre - below, above - centre
        shift = (e_low * d_high**2 - e_high * d_low**2) / (2 * (e_low * d_high + e_high * d_low))
        return Vertex("parabola", (math.exp(centre + shift),))

    def fit(self, noise: Noise | None = None) -> FittedResponse:
        """The response with its uncertainty; `noise` replaces what the replicates here measure."""
        return FittedResponse(self, noise)

    @property
    def _best(self) -> int:
        if not len(self.lrs):
            raise InputError("observations", self.tried, "all diverged", "try lower lrs")
        return int(np.argmin(self.means))


class FittedResponse:
    """What a response says of its optimum x0, in x = log2 lr: a posterior, summed over a grid, nothing drawn.

    ``y_i = m + A * s(x_i - x0) + e_i``, where s is a power of the distance on either side, 1/2 to 16 times as steep on
    the high side: parabolas, kinks, and walls of power 4. ``e_i`` has variance ``sd² / n_i + (k * A * s_i * |x_i - x0|)²``: the noise
    between seeds, and a relative error of the shape, k = 0 or 1/4 an octave. m is flat, log sd flat unless measured or given, A / sd even in log, x0
    even from two octaves below the lowest lr to two above the highest, or to the cliff. m and A are integrated exactly,
    sd by Laplace's method. The shapes' weights are chosen so that 90% intervals hold the optimum in about 90% of
    synthetic studies of several kinds, not of the fitted ones alone.
    """

    def __init__(self, response: Response, noise: Noise | None = None) -> None:
        self.response = response
        self._given = noise
        self._low, self._high = float(response.lrs[response._best]), 0.0
        self._low, self._high = float(np.log2(response.lrs[0])), float(np.log2(response.lrs[-1]))
