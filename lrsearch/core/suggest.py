"""From a range test's curve to a learning rate, a bracket and a verdict; pure functions on arrays."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lrsearch.core import text
from lrsearch.core.curve import SKIP_END, SKIP_START, Array, RangeTestCurve, windows
from lrsearch.core.findings import Bracket
from lrsearch.core.suggestion import RULES, Suggestion, Verdict

_FEWEST_POINTS = 20
_BLOWN_UP = 2.0
_SLOPE_DECADES = 1.0
_SLOPES = 200
"""Slopes are taken at about so many lrs: 25 to a decade tell the steepest well enough."""
_DISAGREEMENT = 20.0
"""Rules further apart than this factor read different things into the curve; on real curves 95% lie within
11.
"""


_NARROWEST_BRACKET = 10**1.5
"""The optimum lies within about one and a half decades below the edge (Smith 2015), also where a short sweep
fell late.
"""


@dataclass(frozen=True)
class Shape:
    """The valley of a curve, read from windowed medians of raw losses.

    `initial` and `lowest` are loss levels (where the loss `blew_up` in the first steps, the first loss is the
    initial one), `bottom` the index of the lowest. `descent` is the lr at which the
    loss had fallen half of the way from initial to lowest; `edge` the lowest lr past the bottom at which half
    of that fall is regained, or the loss is no longer finite; None where neither happened. `falls` and
    `rises` say whether the change stands out from the noise.
    """

    initial: float
    lowest: float
    bottom: int
    descent: float | None
    edge: float | None
    falls: bool
    rises: bool
    blew_up: bool = False


def read_shape(curve: RangeTestCurve) -> Shape:
    """Finds the valley's two walls.

    A fall or rise stands out where it exceeds the resolution of a 32-bit loss and four standard errors of the
    difference between the median of the first ten losses and that of a window: each has 1.25 * s / sqrt(its
    points), s the noise of one loss (see `_noise`).
    """
    median = curve.median
    lrs = curve.recorded_lrs
    spans = windows(lrs)
    blew_up = _blew_up(curve.losses[:SKIP_START])
    initial = float(curve.losses[0] if blew_up else np.median(curve.losses[:SKIP_START]))
    bottom = int(np.argmin(median))
    lowest = float(median[bottom])
    half = (initial + lowest) / 2
    # A bottom at the very start leaves no loss to judge the noise by: twenty at least are read.
    noise = _noise(curve.losses[: max(bottom + 1, _FEWEST_POINTS)])
    points = int(spans[bottom, 1] - spans[bottom, 0])
    threshold = max(4 * 1.25 * noise * math.sqrt(1 / SKIP_START + 1 / points), 1e-5 * abs(initial))
    falls = initial - lowest > threshold
    may_rise = curve.divergence == "not_finite"
    risen = np.flatnonzero(median[bottom:] >= (np.inf if may_rise else half))
    if not falls:
        edge = None
    elif len(risen):
        edge = _crossing(lrs, median, bottom + int(risen[0]), half)
    else:
        edge = curve.lr_not_finite
    return Shape(
        initial=initial,
        lowest=lowest,
        bottom=bottom,
        descent=_crossing(lrs, median, int(np.flatnonzero(median <= half)[0]), half) if falls else None,
        edge=edge,
        falls=falls,
        rises=float(np.max(median)) - initial > threshold or curve.lr_not_finite is not None,
        blew_up=blew_up,
    )


def _blew_up(losses: Array) -> bool:
    """Whether the loss left its first value for good at once: no later one among these is as low, and the
    second half of them is above it by more than twice its size.
    """
    first, later = float(losses[0]), losses[len(losses) // 2 :]
    return bool(np.all(losses[1:] > first) and np.all(later - first > _BLOWN_UP * abs(first)))


def _crossing(lrs: Array, median: Array, i: int, level: float) -> float:
    """The lr, between those of i - 1 and i, at which the line between their medians meets `level`.

    With twelve steps to a decade the grid alone would move a wall by a fifth.
    """
    if i == 0:
        return float(lrs[0])
    share = (level - median[i - 1]) / (median[i] - median[i - 1])
    return float(lrs[i - 1] * (lrs[i] / lrs[i - 1]) ** share)


def _noise(losses: Array) -> float:
    """Standard deviation of one loss, ``1.4826 * median |loss_{i+1} - loss_i| / sqrt(2)``.

    Neighbours share their level, whatever the trend.
    """
    return 1.4826 * float(np.median(np.abs(np.diff(losses)))) / math.sqrt(2)


def minimum_rule(curve: RangeTestCurve) -> float:
    """A tenth of the lr of the smoothed loss's minimum, skips applied.

    The classical answer. Source: Gugger 2018.
    """
    shown = curve.smoothed[SKIP_START:-SKIP_END]
    return float(curve.lrs[SKIP_START + int(np.argmin(shown))]) / 10


def steepest_rule(curve: RangeTestCurve, bottom: int) -> float:
    """The lr at which the loss falls fastest: argmin of d loss / d ln(lr), before the bottom.

    The slope is that of the least-squares line through the windowed medians within half a decade either side.
    """
    x = np.log(curve.recorded_lrs)
    every = max(1, curve.steps // _SLOPES)
    spans = windows(curve.recorded_lrs, decades=_SLOPE_DECADES)[: bottom + 1 : every]
    starts, widths = spans[:, 0], spans[:, 1] - spans[:, 0]
    slopes = np.empty(len(spans))
    for width in np.unique(widths).tolist():  # all windows of a width at once: log spacing has few widths
        at = widths == width
        xs, ys = (sliding_window_view(values, width)[starts[at]] for values in (x, curve.median))
        xs = xs - xs[:, :1]  # the same window elsewhere on the axis has the same numbers
        xs = xs - xs.mean(axis=1, keepdims=True)
        slopes[at] = (xs * ys).sum(axis=1) / (xs * xs).sum(axis=1)
    return float(curve.lrs[every * int(np.argmin(slopes))])


def valley_rule(curve: RangeTestCurve, shape: Shape) -> float:
    """The lr halfway down the longest decreasing subsequence of the windowed medians.

    From s to e, that is index ``s + (e - s)//3 + (e - s)//6``. Looked for between the last lr at which less
    than a tenth of the fall was done and the bottom, for in the noise of a flat start there are long
    decreasing subsequences too. Source: fastai's default rule, there on the smoothed loss and the whole
    curve.
    """
    median = curve.median[: shape.bottom + 1]
    begun = np.flatnonzero(median >= shape.initial - 0.1 * (shape.initial - shape.lowest))
    first = int(begun[-1]) if len(begun) else 0
    start, end = _longest_decrease(median[first:])
    return float(curve.lrs[first + start + (end - start) // 3 + (end - start) // 6])


def _longest_decrease(values: Array) -> tuple[int, int]:
    """First and last index of the longest strictly decreasing subsequence (patience sorting)."""
    tails: list[float] = []  # tails[k]: negated last value of the best subsequence of length k + 1
    at: list[int] = []
    previous = [-1] * len(values)
    for i, value in enumerate((-values).tolist()):
        k = bisect_left(tails, value)
        previous[i] = at[k - 1] if k else -1
        if k == len(tails):
            tails.append(value)
            at.append(i)
        else:
            tails[k], at[k] = value, i
    start = end = at[-1]
    while previous[start] >= 0:
        start = previous[start]
    return start, end


def walls_rule(descent: float, edge: float, bottom: float) -> float:
    """A third of the way, in log lr, from the descent to the edge, at most half of the bottom's lr.

    ``min(descent**(2/3) * edge**(1/3), bottom / 2)``. The walls are crossings of steep slopes at half their
    depth, which noise moves little, while it moves the place of a broad minimum far. The cap is for short
    sweeps, which fall late and see the edge late. On 13 small nets (tests/bench/rules.py) its lr loses
    0.7% of the achievable improvement on average, 1.5% in the 90th percentile; minimum/10 1.5% and 2.9%.
    """
    return float(min(descent ** (2 / 3) * edge ** (1 / 3), bottom / 2))


def suggest(curve: RangeTestCurve) -> Suggestion:
    """The suggestion of one curve."""
    found = _suggest(curve)
    return replace(found, reason="; ".join([found.reason, *curve.notes]))


def _suggest(curve: RangeTestCurve) -> Suggestion:
    if curve.steps < _FEWEST_POINTS:
        mend = f"give at least {_FEWEST_POINTS} steps"
        if curve.stopped_at is not None:
            ended = curve.lrs[curve.stopped_at - 1]
            mend = f"the sweep ended at lr {text.number(ended)}: lower min_lr, or give more steps"
            if curve.stop_reason == "rose":
                mend = (
                    f"the loss blew up at lr {text.number(ended)}: lower min_lr, or scale inputs and targets"
                )
        return _no_number(
            "too_few_points", f"{curve.steps} finite losses are too few to tell a fall from noise; {mend}"
        )
    shape = read_shape(curve)
    span = text.bracket(curve.recorded_lrs[0], curve.recorded_lrs[-1])
    if shape.descent is None:
        if shape.blew_up:
            return _no_number(
                "only_rising",
                f"the loss blew up in the first steps, from {text.number(shape.initial)}, and never fell "
                "below that again; lower min_lr, or scale inputs and targets",
            )
        if shape.rises:
            return _no_number(
                "only_rising",
                f"from lr {span} the loss never fell, and then rose; lower min_lr, or give "
                "divergence='not_finite' where it may rise without harm",
            )
        return _no_number(
            "flat",
            f"from lr {span} the loss moved no more than its noise; raise max_lr, or check the model",
        )
    rules = {
        "minimum": minimum_rule(curve),
        "steepest": steepest_rule(curve, shape.bottom),
        "valley": valley_rule(curve, shape),
    }
    fall = f"the loss fell from {text.number(shape.initial)} to {text.number(shape.lowest)}"
    if shape.edge is None:
        last = text.number(curve.recorded_lrs[-1])
        reason = f"{fall} and never regained half of that up to lr {last}; raise max_lr"
        return Suggestion(None, RULES[0], Bracket(shape.descent, None), "never_diverged", reason, rules)
    walls = walls_rule(shape.descent, shape.edge, bottom=float(curve.lrs[shape.bottom]))
    rules = {"walls": walls, **rules}
    low = min(shape.descent, shape.edge / _NARROWEST_BRACKET, walls)
    reason = (
        f"{fall}, was halfway at lr {text.number(shape.descent)}, "
        f"and had regained half of that by lr {text.number(shape.edge)}"
    )
    if shape.descent < curve.lrs[SKIP_START]:
        reason += "; the loss fell from the first steps on, so the bracket may lie lower: lower min_lr"
    return _with_verdict(rules, Bracket(low, shape.edge), reason)


def combine(suggestions: Sequence[Suggestion]) -> Suggestion:
    """One answer from the curves of several seeds: medians in log lr.

    The verdict is the commonest one where fewer than half of the curves gave a number.
    """
    if len(suggestions) == 1:
        return suggestions[0]
    numbered = [s for s in suggestions if s.lr is not None]
    if 2 * len(numbered) < len(suggestions):
        verdicts = Counter(s.verdict for s in suggestions if s.lr is None)
        verdict, count = verdicts.most_common(1)[0]
        example = next(s for s in suggestions if s.verdict == verdict)
        reason = f"{count} of {len(suggestions)} curves: {example.reason}"
        brackets = [s.bracket for s in suggestions if s.verdict == verdict and s.bracket]
        bracket = Bracket(_middle([b.low for b in brackets]), None) if brackets else None
        return Suggestion(None, RULES[0], bracket, verdict, reason, example.rules)
    rules = {name: _middle([s.rules[name] for s in numbered]) for name in RULES}
    walls = [s.bracket for s in numbered if s.bracket is not None and s.bracket.high is not None]
    bracket = Bracket(_middle([b.low for b in walls]), _middle([b.high for b in walls if b.high is not None]))
    lrs = [s.rules[RULES[0]] for s in numbered]
    reason = (
        f"median of {len(numbered)} of {len(suggestions)} curves, {text.bracket(min(lrs), max(lrs))}; "
        f"the loss regained half of its fall by lr {text.number(bracket.high)}"
    )
    combined = _with_verdict(rules, bracket, reason)
    return Suggestion(**{**combined.__dict__, "spread": (min(lrs), max(lrs))})


def _with_verdict(rules: dict[str, float], bracket: Bracket, reason: str) -> Suggestion:
    apart = max(rules.values()) / min(rules.values())
    verdict: Verdict = "ok"
    if apart > _DISAGREEMENT:
        verdict = "rules_disagree"
        reason += f"; the rules are a factor {apart:.0f} apart, so confirm the lr by training"
    return Suggestion(rules[RULES[0]], RULES[0], bracket, verdict, reason, rules)


def _no_number(verdict: Verdict, reason: str) -> Suggestion:
    return Suggestion(None, RULES[0], None, verdict, reason, {})


def _middle(values: Sequence[float]) -> float:
    """Median in log space."""
    return float(np.exp(np.median(np.log(values))))
