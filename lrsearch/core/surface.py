"""One response surface: the final loss over lr and schedule, as all of a study's trainings tell it.

A Gaussian process in ``u = log2(lr) - x0 - shift``, x0 the best lr seen, `shift` that of every decay against
a constant lr. In units of the way from the untrained to the best loss a training under family f ends at

``y = A * u² / 2 + level + tilt * u + bend * u² + wiggle(u) + gain + offset_f + wiggle_f(u) + e``

- A, the curvature: the loss of an octave. Level, tilt and bend are free to move the bowl and to change it;
- wiggle, a Matérn process (5/2): what is no parabola's. All families share it, so that each tells of all;
- the gain of any decay over a constant lr; offset_f and a small wiggle of its own, by what a family differs
  from the others. A warmup has these two as well;
- e, the noise between seeds: Student's t with 4 degrees of freedom, one scale for all trainings.

A, the noise and the shift are averaged over a fixed grid, each point weighed by how well
it explains the trainings (the marginal likelihood) and by a wide prior. A loss far above the best (more than
``3 * A``) and a training that diverged are bounds: the surface lies at least as high there, nobody knows how
much higher. Nothing is drawn at random but for the optimum's interval, always with the same numbers.

Sources: C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006,
https://gaussianprocess.org/gpml; P. Frazier, W. Powell and S. Dayanik, "The Knowledge-Gradient Policy for
Correlated Normal Beliefs", 2009, https://doi.org/10.1287/ijoc.1080.0314.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy.special import log_ndtr

from lrsearch.core.curve import Array
from lrsearch.core.family import CONSTANT, Family
from lrsearch.errors import InputError

_CURVATURES = np.geomspace(5e-4, 0.5, 10)
_NOISES = np.geomspace(1e-4, 0.3, 10)
_LENGTH = 1.25  # octaves
_SHIFTS = np.array([0.0, 0.75, 1.5, 2.25, 3.0])  # octaves
_CURVATURE_PRIOR = math.log(0.008), 1.5
_NOISE_PRIOR = math.log(0.002), 1.3
_SHIFT_PRIOR = 1.0, 1.0
"""Mean and standard deviation; of the logarithm for curvature and noise, which are shares of the way."""
_LEVEL = 1.0
_TILT, _BEND, _WIGGLE = 2.0, 0.25, 0.6
_DECAY, _OFFSET, _OWN_WIGGLE = 2.0, 0.5, 0.15
"""Standard deviations in units of the curvature, but for the level's."""
_FAR = 3.0
_SOFT = 0.5
_FREEDOM = 4.0
_ROUNDS = 6  # of reweighting; the weights hardly move after the fourth
_KEPT = 12  # points of the grid that predict; the others weigh next to nothing
_UNBOUND = 1e4  # variance of a bound that says nothing
_NODES, _WEIGHTS = hermegauss(9)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_DRAWS = 400

_GRID = np.array(list(itertools.product(_CURVATURES, _NOISES, _SHIFTS)))
_PRIOR = -0.5 * (
    ((np.log(_GRID[:, 0]) - _CURVATURE_PRIOR[0]) / _CURVATURE_PRIOR[1]) ** 2
    + ((np.log(_GRID[:, 1]) - _NOISE_PRIOR[0]) / _NOISE_PRIOR[1]) ** 2
    + ((_GRID[:, 2] - _SHIFT_PRIOR[0]) / _SHIFT_PRIOR[1]) ** 2
)


@dataclass(frozen=True)
class Place:
    """An lr under a family of schedules: where a training may be made."""

    lr: float
    family: Family = CONSTANT


@dataclass(frozen=True)
class Observation:
    """A training: its place, its seed, and its final loss, which is not read where it diverged."""

    lr: float
    objective: float | None
    seed: int = 0
    diverged: bool = False
    family: Family = CONSTANT

    @property
    def place(self) -> Place:
        """Where it was made."""
        return Place(self.lr, self.family)


@dataclass(frozen=True)
class _Points:
    """Places as arrays: log2 lr, the family's name, and whether it decays and is warmed up, each (n,)."""

    x: Array
    family: NDArray[np.str_]
    decays: NDArray[np.bool_]
    warmed: NDArray[np.bool_]


class Surface:
    """What trainings say of the loss at any lr under any family.

    `way` is that from the untrained to the best loss: every scale is a share of it. Raises InputError where
    no training has a loss, for an lr that is not above 0, and for a way that is not.
    """

    def __init__(self, seen: Sequence[Observation], way: float) -> None:
        _check(seen, way)
        self._way = way
        self._seen = _points([o.place for o in seen])
        losses = np.array([np.nan if o.diverged or o.objective is None else o.objective for o in seen])
        self._best = float(np.nanmin(losses))
        self._x0 = float(self._seen.x[losses == self._best].min())
        self._fit(np.nan_to_num((losses - self._best) / way, nan=np.inf))

    def losses(self, places: Sequence[Place]) -> Array:
        """The expected losses at places, shape (n,)."""
        mean, _ = self._predict(_points(places))
        return np.asarray(self._best + self._way * (self._weights @ mean))

    def difference(self, one: Place, other: Place) -> tuple[float, float]:
        """By how much the loss at `one` is above that at the `other`: mean and standard deviation."""
        points = _points([one, other])
        mean, root = self._predict(points)
        covariance = self._covariance(points, points, self._kept) - root @ root.transpose(0, 2, 1)
        variance = np.maximum(covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1], 0)
        apart = mean[:, 0] - mean[:, 1]
        middle = float(self._weights @ apart)
        spread = math.sqrt(float(self._weights @ (variance + (apart - middle) ** 2)))
        return self._way * middle, self._way * spread

    def knowledge_gradient(self, trainings: Sequence[Place], answers: Sequence[Place]) -> Array:
        """What one more training at each of some places is worth: the fall, on average over what it may
        show, of the lowest expected loss among the `answers`. Shape (n,), in the loss's unit.
        """
        at, to = _points(trainings), _points(answers)
        mean, root_to = self._predict(to)
        _, root_at = self._predict(at)
        kept = self._kept
        shared = self._covariance(at, to, kept) - root_at @ root_to.transpose(0, 2, 1)
        own = self._variance(at, kept) - (root_at**2).sum(2)
        told = shared / np.sqrt(np.maximum(own, 0) + kept[:, 1][:, None] ** 2)[:, :, None]
        after = (mean[:, None, :, None] + told[:, :, :, None] * _NODES).min(2) @ _WEIGHTS
        return np.asarray(self._way * (self._weights @ (mean.min(1)[:, None] - after)))

    def optimum(self, places: Sequence[Place], quantiles: Sequence[float]) -> Array:
        """Quantiles of where among places of one family, by rising lr, the loss is lowest; as lrs.

        The surface is drawn 400 times, always with the same random numbers.
        """
        points = _points(places)
        mean, root = self._predict(points)
        rng = np.random.default_rng(0)
        normal = rng.standard_normal((len(places), _DRAWS))
        # The draws are dealt out by the weights: no point of the grid is drawn at random.
        share = np.floor(_DRAWS * np.cumsum(self._weights) + 0.5).astype(int)
        lowest = []
        for k, (first, last) in enumerate(itertools.pairwise([0, *share])):
            if last == first:
                continue
            one = self._kept[k : k + 1]
            covariance = self._covariance(points, points, one)[0] - root[k] @ root[k].T
            covariance -= covariance.mean(0)  # what all places share moves no optimum
            covariance -= covariance.mean(1)[:, None]
            values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
            spread = vectors * np.sqrt(np.maximum(values, 0))
            drawn = mean[k][:, None] + spread @ normal[:, first:last]
            lowest.append(points.x[drawn.argmin(0)])
        found = np.quantile(np.concatenate(lowest), quantiles, method="inverted_cdf")
        return np.asarray(2.0**found)

    def _octaves(self, points: _Points, grid: Array) -> Array:
        """Each place's u at each point of the grid, shape (grid, n)."""
        return points.x - self._x0 - grid[:, 2][:, None] * points.decays

    def _covariance(self, one: _Points, other: _Points, grid: Array) -> Array:
        """Between the surface at places, shape (grid, n, m)."""
        u, v = self._octaves(one, grid)[:, :, None], self._octaves(other, grid)[:, None, :]
        square = grid[:, 0][:, None, None] ** 2
        wiggle = _matern(u - v)
        decay = np.outer(one.decays, other.decays)
        family = 1.0 * (decay & (one.family[:, None] == other.family)) + np.outer(one.warmed, other.warmed)
        bowl = _TILT**2 * u * v + _BEND**2 * (u * v) ** 2 + _WIGGLE**2 * wiggle
        apart = _DECAY**2 * decay + family * (_OFFSET**2 + _OWN_WIGGLE**2 * wiggle)
        return np.asarray(_LEVEL**2 + square * (bowl + apart))

    def _variance(self, points: _Points, grid: Array) -> Array:
        """Of the surface at places, shape (grid, n)."""
        u2 = self._octaves(points, grid) ** 2
        bowl = _TILT**2 * u2 + _BEND**2 * u2**2 + _WIGGLE**2
        family = 1.0 * points.decays + points.warmed
        apart = _DECAY**2 * points.decays + family * (_OFFSET**2 + _OWN_WIGGLE**2)
        return np.asarray(_LEVEL**2 + grid[:, 0][:, None] ** 2 * (bowl + apart))

    def _fit(self, y: Array) -> None:
        """At every point of the grid: what the trainings tell, and how well the point explains them.

        Rounds of two approximations by a normal distribution: a training's t noise by a weight (expectation
        maximisation), and a bound, whose likelihood is ``Phi((f - 3 A) / (A / 2))``, by the moments that it
        leaves (expectation propagation, Rasmussen and Williams, section 3.6).
        """
        grid, n = _GRID, len(y)
        curvature = grid[:, 0][:, None]
        limit, softness = _FAR * curvature, _SOFT * curvature
        bounds = y > limit
        prior = curvature / 2 * self._octaves(self._seen, grid) ** 2
        covariance = self._covariance(self._seen, self._seen, grid)
        noise = np.broadcast_to(grid[:, 1][:, None] ** 2, bounds.shape)
        target = np.where(bounds, limit, y)
        variance = np.where(bounds, _UNBOUND, noise)
        weights = np.ones_like(variance)
        for last in (False,) * (_ROUNDS - 1) + (True,):
            root = np.linalg.inv(np.linalg.cholesky(covariance + np.eye(n) * variance[:, :, None]))
            inverse = root.transpose(0, 2, 1) @ root
            solved = (inverse @ (target - prior)[:, :, None])[:, :, 0]
            left = np.maximum(variance - variance**2 * np.einsum("gii->gi", inverse), 1e-12)
            mean = target - variance * solved
            # what is known of the loss at a bound without that bound
            apart = 1 / np.maximum(1 / left - 1 / variance, 1e-12)
            without = apart * (mean / left - target / variance)
            width = np.sqrt(apart + softness**2)
            z = (without - limit) / width
            if last:
                break
            hazard = np.exp(-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - log_ndtr(z))
            kept = apart - apart**2 * hazard * (z + hazard) / width**2
            site = 1 / np.clip(1 / kept - 1 / apart, 1 / _UNBOUND, 1e12)
            at = without + (apart + site) * hazard / width
            weights = (_FREEDOM + 1) / (_FREEDOM + ((target - mean) ** 2 + left) / noise)
            variance = np.where(bounds, site, noise / weights)
            target = np.where(bounds, at, target)
        likelihood = -0.5 * ((target - prior) * solved).sum(1) + np.log(np.einsum("gii->gi", root)).sum(1)
        normal = -0.5 * math.log(2 * math.pi) - _FREEDOM / 2 * (weights - np.log(weights) - 1)
        bound = (
            log_ndtr(z) + 0.5 * np.log(apart + variance) + (without - target) ** 2 / (2 * (apart + variance))
        )
        likelihood += np.where(bounds, bound, normal).sum(1)
        posterior = likelihood + _PRIOR
        best = np.argsort(-posterior, kind="stable")[:_KEPT]
        weighed = np.exp(posterior[best] - posterior[best[0]])
        self._weights = weighed / weighed.sum()
        self._kept, self._root, self._solved = grid[best], root[best], solved[best]

    def _predict(self, points: _Points) -> tuple[Array, Array]:
        """The mean (grid, n) at places, and the root of what the trainings took of its variance."""
        shared = self._covariance(points, self._seen, self._kept)
        mean = self._kept[:, 0][:, None] / 2 * self._octaves(points, self._kept) ** 2
        mean = mean + (shared @ self._solved[:, :, None])[:, :, 0]
        return mean, shared @ self._root.transpose(0, 2, 1)


def _points(places: Sequence[Place]) -> _Points:
    return _Points(
        np.log2([p.lr for p in places]),
        np.array([p.family.name for p in places]),
        np.array([p.family.decays for p in places]),
        np.array([p.family.warmup != "" for p in places]),
    )


def _matern(u: Array) -> Array:
    scaled = math.sqrt(5) / _LENGTH * np.abs(u)
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


def _check(seen: Sequence[Observation], way: float) -> None:
    if all(o.diverged or o.objective is None for o in seen):
        raise InputError(
            "seen", [o.lr for o in seen], "has no loss", "hand over a training that did not diverge"
        )
    for o in seen:
        if not (math.isfinite(o.lr) and o.lr > 0):
            raise InputError("lr", o.lr, "is no learning rate", "give a finite number above 0")
        if not o.diverged and o.objective is not None and not math.isfinite(o.objective):
            raise InputError("objective", o.objective, "is not finite", "mark the training as diverged")
    if not (math.isfinite(way) and way > 0):
        raise InputError("way", way, "is no difference of losses", "give a finite number above 0")
