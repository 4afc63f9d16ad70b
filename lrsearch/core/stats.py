"""Is one candidate worse than another? Noise between seeds, intervals, and the decision of the confirm stage.

Objectives are losses here: lower is better. Whoever maximises a metric hands over its negative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from lrsearch.core.curve import Array
from lrsearch.errors import InputError


@dataclass(frozen=True)
class Noise:
    """Standard deviation of an objective between seeds, in the objective's unit, and its degrees of freedom.

    `df` is infinite where the noise is known rather than measured.
    """

    sd: float
    df: float = math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sd) and self.sd >= 0):
            raise InputError("sd", self.sd, "is no standard deviation", "give a finite number of at least 0")
        if not self.df > 0:
            raise InputError("df", self.df, "leaves nothing to measure with", "give a number above 0")


def noise(groups: Sequence[Sequence[float]]) -> Noise | None:
    """Pooled standard deviation between seeds; None where no group has two values.

    ``sd² = sum_g sum_i (y_gi - mean_g)² / sum_g (n_g - 1)``, one group a configuration, with the denominator
    as `df`. Raises InputError for a value that is not finite.
    """
    values = [_finite("groups", group) for group in groups]
    df = sum(len(group) - 1 for group in values if len(group))
    if df == 0:
        return None
    squares = sum(float(np.sum((group - group.mean()) ** 2)) for group in values if len(group))
    return Noise(math.sqrt(squares / df), df)


@dataclass(frozen=True)
class Comparison:
    """How much worse `a` is than `b`: the mean of a - b and what it can be told to be.

    `low` and `high` hold the difference with probability `level`; `lower` and `upper` are the one-sided
    bounds, each at `level`. With a single pair nothing bounds the difference: they are infinite.
    `correlation` is that of equal seeds, None with fewer than three pairs, without spread, or unpaired.
    """

    difference: float
    low: float
    high: float
    lower: float
    upper: float
    level: float
    df: float
    correlation: float | None


def compare(a: Sequence[float], b: Sequence[float], *, paired: bool = True, level: float = 0.9) -> Comparison:
    """Compares two candidates' objectives by Student's t, one value a seed.

    Paired: value i of both has the same seed; t on the n differences with n - 1 degrees of freedom. Unpaired:
    Welch's t, with Satterthwaite's degrees of freedom. Raises InputError for values that are not finite, for
    none at all, and for pairs of unequal number. Source: Welch 1947.
    """
    if not 0.5 <= level < 1:
        raise InputError(
            "level", level, "is no confidence level", "give a number from 0.5 to below 1, e.g. 0.9"
        )
    first, second = _finite("a", a), _finite("b", b)
    if not len(first) or not len(second):
        raise InputError("a" if not len(first) else "b", [], "holds no value", "give one objective a seed")
    if paired and len(first) != len(second):
        raise InputError(
            "b",
            list(b),
            f"has {len(second)} values and a has {len(first)}",
            "give one a seed, or paired=False",
        )
    error, df = _paired_error(first - second) if paired else _welch_error(first, second)
    difference = float(first.mean() - second.mean())
    two_sided, one_sided = (_half_width(error, df, p) for p in ((1 + level) / 2, level))
    return Comparison(
        difference=difference,
        low=difference - two_sided,
        high=difference + two_sided,
        lower=difference - one_sided,
        upper=difference + one_sided,
        level=level,
        df=df,
        correlation=_correlation(first, second) if paired else None,
    )


@dataclass(frozen=True)
class Candidate:
    """A configuration in the confirm stage: its schedule's name, its lr, and its objective by seed.

    One that `diverged` on any seed cannot win, whatever its objectives.
    """

    name: str
    schedule: str
    lr: float
    objectives: Mapping[int, float]
    diverged: bool = False

    @property
    def mean(self) -> float:
        """Mean objective over the seeds."""
        return float(np.mean(list(self.objectives.values())))


GainVerdict = Literal["worse", "not_worse", "better", "not_better", "undecided", "one_seed"]


@dataclass(frozen=True)
class Gain:
    """By how much the winner is better than another candidate, in the objective's unit; positive is better.

    `low` and `high` are the bounds that decide, each with confidence `level`; both are None with one pair of
    seeds, which bounds nothing. `correlation` is that of equal seeds, as in a `Comparison`. The `verdict` is
    on the other one, and asks whether the simpler of the two is worse by more than the margin:

    - ``worse``: it lies above 0, and by more than the margin where the other is simpler,
    - ``not_worse``: the other is simpler, and worse by less than the margin if at all,
    - ``not_better``: the winner is simpler, and the other better by less than the margin if at all,
    - ``better``: by more than the margin. The winner's mean is the best, over seeds that the other has not,
    - ``undecided``: the bounds leave it open,
    - ``one_seed``: nothing bounds it.
    """

    mean: float
    low: float | None
    high: float | None
    level: float
    verdict: GainVerdict
    correlation: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether more seeds are needed to decide."""
        return self.verdict in ("undecided", "one_seed")


def gain_over(
    other: Candidate,
    winner: Candidate,
    delta: float,
    *,
    simpler: bool,
    paired: bool = True,
    level: float = 0.9,
) -> Gain | None:
    """By how much the winner is better than the other, which is the `simpler` of the two or is not.

    With d the gain, an other that is simpler is worse where d is above `delta` for certain (at `level`), and
    not worse where it is certainly below; one that is not is not better where d is certainly above
    ``-delta``, and better where it is certainly below. Paired, the seeds are those that both have; None where
    there are none.
    """
    seeds = sorted(other.objectives.keys() & winner.objectives.keys() if paired else other.objectives)
    others = seeds if paired else sorted(winner.objectives)
    if not seeds or not others:
        return None
    seen = compare(
        [other.objectives[seed] for seed in seeds],
        [winner.objectives[seed] for seed in others],
        paired=paired,
        level=level,
    )
    low, high = seen.lower, seen.upper
    verdict: GainVerdict = "undecided"
    if not (math.isfinite(low) and math.isfinite(high)):
        return Gain(seen.difference, None, None, level, "one_seed", seen.correlation)
    if simpler and low > delta:
        verdict = "worse"
    elif simpler and high < delta:
        verdict = "not_worse"
    elif not simpler and low > -delta:
        verdict = "worse" if low > 0 else "not_better"
    elif not simpler and high < -delta:
        verdict = "better"
    return Gain(seen.difference, low, high, level, verdict, seen.correlation)


@dataclass(frozen=True)
class Decision:
    """The winner, why, and its gain over each other candidate that did not diverge, by name.

    A gain is None where no seed is common to both.
    """

    winner: Candidate
    reason: str
    gains: Mapping[str, Gain | None]

    @property
    def undecided(self) -> tuple[str, ...]:
        """The candidates that may be on either side of the margin."""
        return tuple(name for name, gain in self.gains.items() if gain is None or gain.is_open)

    @property
    def settled(self) -> bool:
        """No further seed is needed."""
        return not self.undecided


def decide(
    candidates: Sequence[Candidate],
    delta: float,
    *,
    simplicity: Sequence[str],
    paired: bool = True,
    level: float = 0.9,
    best_mean: str = "lowest mean objective",
) -> Decision:
    """The simplest candidate that is not worse than the best by `delta`, else the best.

    The best has the lowest mean, which the reason calls `best_mean`. Candidates are ordered by their
    schedule's place in `simplicity` (simplest first), then by lr, so that lr counts within one schedule only.
    In this order, the first whose excess over the best has its one-sided upper bound (at `level`) below
    `delta`, in the objective's unit, wins.
    A pair is undecided while the excess of its simpler member over the other may lie on either side of
    `delta`: the bound from above does not fall below it, nor the bound from below rise above it (see
    `gain_over`). Ask again with more seeds until the decision is `settled`. Pairs are formed of the seeds
    both have; those of one seed only are undecided. Raises InputError for no candidate, one without
    objectives, names that are not unique, an unknown schedule, a delta that is not above 0, and where every
    candidate diverged.
    """
    _check(candidates, delta, simplicity)
    order = sorted(
        (candidate for candidate in candidates if not candidate.diverged),
        key=lambda candidate: (simplicity.index(candidate.schedule), candidate.lr),
    )
    if not order:
        raise InputError("candidates", [c.name for c in candidates], "all diverged", "lower their lr")

    def gain(other: Candidate, winner: Candidate) -> Gain | None:
        simpler = order.index(other) < order.index(winner)
        return gain_over(other, winner, delta, simpler=simpler, paired=paired, level=level)

    best = min(order, key=lambda candidate: candidate.mean)
    winner, reason = best, best_mean
    for candidate in order[: order.index(best)]:
        found = gain(candidate, best)
        if found is not None and found.verdict == "not_worse":
            winner = candidate
            reason = (
                f"simpler than {best.name}, and worse by less than {delta:.3g}: "
                f"{found.mean:+.3g}, at most {found.high:+.3g} ({level:.0%})"
            )
            break
    return Decision(
        winner, reason, {other.name: gain(other, winner) for other in order if other is not winner}
    )


def _check(candidates: Sequence[Candidate], delta: float, simplicity: Sequence[str]) -> None:
    names = [candidate.name for candidate in candidates]
    if not names:
        raise InputError("candidates", names, "is empty", "give at least one")
    if len(set(names)) < len(names):
        raise InputError("candidates", names, "has a name twice", "give each its own name")
    if not (math.isfinite(delta) and delta > 0):
        raise InputError("delta", delta, "is no margin", "give a finite number above 0")
    for candidate in candidates:
        if candidate.schedule not in simplicity:
            mend = f"choose from {', '.join(simplicity)}"
            raise InputError("schedule", candidate.schedule, "has no place in the order of simplicity", mend)
        if candidate.diverged:
            continue
        if not candidate.objectives:
            raise InputError("objectives", {}, f"of {candidate.name} is empty", "give one objective a seed")
        _finite(f"objectives of {candidate.name}", list(candidate.objectives.values()))


def _finite(argument: str, values: Sequence[float]) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise InputError(
            argument, list(values), "holds a value that is not finite", "leave diverged trials out"
        )
    return array


def _paired_error(differences: Array) -> tuple[float, float]:
    n = len(differences)
    return (float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf), n - 1


def _welch_error(a: Array, b: Array) -> tuple[float, float]:
    if min(len(a), len(b)) < 2:
        return math.inf, 0
    shares = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    freedom = np.array([len(a) - 1, len(b) - 1])
    if shares.sum() == 0:
        return 0.0, float(freedom.sum())
    shares_of_one = shares / shares.sum()  # squares of small variances would underflow
    return math.sqrt(shares.sum()), float(1 / np.sum(shares_of_one**2 / freedom))


def _half_width(error: float, df: float, probability: float) -> float:
    return error * float(stdtrit(df, probability)) if df > 0 else math.inf


def _correlation(a: Array, b: Array) -> float | None:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
