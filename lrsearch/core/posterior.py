"""The posterior of an optimal lr, given losses at a few lrs: integrals over a grid, nothing drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lrsearch.core.curve import Array
from lrsearch.core.stats import Noise

_EXTENSION = 2.0
"""Octaves beyond the tested lrs in which the optimum is looked for: a flat response is seen as open."""
_COARSE_STEP, _FINE_POINTS, _TAIL = 0.4, 36, 1e-4
"""Octaves between optima tried first; optima tried again where all but a tail of the probability lies."""
_REFERENCE = 2.0
"""Octaves from the optimum at which shapes of one amplitude agree: the coarse grid's step, a factor of 4."""
_AMPLITUDES = 4.0 ** np.arange(-1.5, 4.1)
"""Excess an octave from the optimum, in units of the noise, evenly spread in log."""
_SPREAD = 0.7
"""Relative standard deviation of the amplitude around each of these, so that they overlap."""
_EXPECTED_OCTAVES, _EXPECTED_DF = 0.7, 4.0
"""Student's t of an optimum around where it is expected: as in replayed studies, with longer tails."""
STEEPEST = 16
"""How much steeper a shape may be above the optimum than below it."""
_DISCREPANCY = np.array([0.002, 0.25])
"""Relative error of the shape an octave away, growing with the distance: real responses are not powers."""
_ROUNDING = 1e-20
_KNOWN_DF = 1e6
_NOISE_FLOOR = 1e-4
"""Noise below this share of the losses' range is none."""


def _shapes() -> Array:
    """Rows of low coefficient, low power, high coefficient, high power, weight; weights sum to 1."""
    rows = []
    for low_power, high_power, step, weight in ((2, 2, 0.5, 0.5), (1, 1, 1.0, 1 / 6), (2, 4, 1.0, 1 / 3)):
        steepness = 2.0 ** np.arange(-1, math.log2(STEEPEST) + 0.1, step)  # high side against low side
        rows += [(r**-0.5, low_power, r**0.5, high_power, weight / len(steepness)) for r in steepness]
    return np.array(rows)


_SHAPES = _shapes()


@dataclass(frozen=True)
class Means:
    """What is fitted: ascending `lrs`, their mean objectives and numbers of trials, each of shape (n,).

    `cliff` is the lr that no optimum passes, `expected` the lr around which it lies as far as is known
    without these trials; None where there is none.
    """

    lrs: Array
    means: Array
    counts: Array
    cliff: float | None
    expected: float | None


@dataclass(frozen=True)
class Posterior:
    """Over evenly spaced `optima` (log2 lr), shape (g,): their `probabilities`, shape (g,); the mean
    `amplitudes`, each times the probability of its optimum and shape, shape (g, s); the mean best objective.
    """

    optima: Array
    probabilities: Array
    amplitudes: Array
    level: float

    def central(self, level: float) -> tuple[float, float]:
        """The lrs between which the optimum lies with probability `level`, with as much on either side."""
        step = self.optima[1] - self.optima[0]
        ends = np.concatenate([self.optima[:1] - step / 2, self.optima + step / 2])
        below = np.concatenate([[0.0], np.cumsum(self.probabilities)])
        low, high = np.interp([(1 - level) / 2, (1 + level) / 2], below, ends)
        return float(2.0**low), float(2.0**high)


def posterior(response: Means, noise: Noise | None) -> Posterior:
    """All optima coarsely first, then those where the probability lies, finely."""
    x = np.log2(response.lrs)
    low = float(x[0]) - _EXTENSION
    high = float(x[-1]) + _EXTENSION if response.cliff is None else math.log2(response.cliff)
    optima = np.linspace(low, high, math.ceil((high - low) / _COARSE_STEP) + 1)
    below = np.cumsum(_given(optima, response, noise).probabilities)
    first, last = np.searchsorted(below, [_TAIL, 1 - _TAIL])
    fine = np.linspace(optima[max(first - 1, 0)], optima[min(last + 1, len(optima) - 1)], _FINE_POINTS)
    return _given(fine, response, noise)


def _given(optima: Array, response: Means, noise: Noise | None) -> Posterior:
    """The posterior where the optimum is one of `optima`.

    Axes: optimum, shape, discrepancy with amplitude, and the lrs, which the sums run over. ``t = 1 / sd``.
    """
    scale = float(np.ptp(response.means))
    offset = float(response.means.mean())
    y = (response.means - offset) / scale
    df = 0.0 if noise is None else min(noise.df, _KNOWN_DF)
    squares = 0.0 if noise is None else df * max(noise.sd / scale, _NOISE_FLOOR) ** 2

    distance = np.log2(response.lrs) - optima[:, None]
    s = np.moveaxis(shape(distance), -1, 1)
    relative = np.outer(_DISCREPANCY, _AMPLITUDES).ravel()
    amplitudes = np.tile(_AMPLITUDES, len(_DISCREPANCY))
    error = (s * np.abs(distance)[:, None, :]) ** 2
    variance = 1 / response.counts + relative[:, None] ** 2 * error[:, :, None, :]

    # Weighted sums with m integrated out: centred on the weighted mean.
    one = np.ones_like(s)
    sums = (1 / variance) @ np.stack([one, one * y, one * y**2, s, s * y, s**2], axis=-1)
    total, total_y, total_yy, total_s, total_sy, total_ss = np.moveaxis(sums, -1, 0)
    yy = total_yy - total_y**2 / total
    sy = total_sy - total_s * total_y / total
    ss = total_ss - total_s**2 / total

    # A / sd is normal around each amplitude: a term of rank one in the covariance, inverted exactly.
    prior = (_SPREAD * amplitudes) ** 2
    shrink = prior / (1 + prior * ss)
    square = np.maximum(yy - shrink * sy**2 + squares, _ROUNDING)
    linear = amplitudes * sy / (1 + prior * ss)
    constant = amplitudes**2 * ss / (1 + prior * ss)

    # The integral over log t of t^n exp(-square * t² / 2 + linear * t), at its mode.
    n = len(y) - 1 + df
    root = np.abs(linear) + np.sqrt(linear**2 + 4 * square * n)
    t = np.where(linear > 0, root / (2 * square), 2 * n / root)  # either way no cancellation
    log_weight = n * np.log(t) - square * t**2 / 2 + linear * t - constant / 2
    log_weight -= 0.5 * np.log(square * t**2 + n)
    log_weight -= 0.5 * (np.log(variance) @ np.ones_like(y) + np.log(total) + np.log(1 + prior * ss))
    log_weight += np.log(_SHAPES[:, 4])[:, None]
    if response.expected is not None:
        off = (optima - math.log2(response.expected)) / _EXPECTED_OCTAVES
        log_weight -= ((_EXPECTED_DF + 1) / 2 * np.log1p(off**2 / _EXPECTED_DF))[:, None, None]
    posterior = np.exp(log_weight - log_weight.max())
    posterior /= posterior.sum()

    # A response has a best, not a worst: no negative amplitude.
    mean_amplitude = np.maximum(amplitudes / prior + sy * t, 0) / (1 / prior + ss) / t
    level = float(np.sum(posterior * (total_y - mean_amplitude * total_s) / total))
    return Posterior(
        optima=optima,
        probabilities=posterior.sum((1, 2)),
        amplitudes=(posterior * mean_amplitude).sum(2) * scale,
        level=offset + scale * level,
    )


def shape(distance: Array) -> Array:
    """Every shape at a distance (octaves) from the optimum, on a new last axis."""
    low, low_power, high, high_power, _ = _SHAPES.T
    far = np.abs(distance)[..., None] / _REFERENCE
    above = distance[..., None] > 0
    return np.asarray(_REFERENCE**2 * np.where(above, high * far**high_power, low * far**low_power))
