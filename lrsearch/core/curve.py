"""The range test's curve: learning rates, raw losses, and two ways to smooth them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lrsearch.core.divergence import Divergence

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

WINDOW_DECADES = 0.25
"""Width of the window over which raw losses are judged: the same stretch of lr whatever the number of
steps.
"""
WINDOW_POINTS = 5
"""A window never holds fewer points, so that its median outvotes two outliers."""
SKIP_START, SKIP_END = 10, 5
"""The classic plot leaves out its first and last points: the average has not settled, and has exploded."""


class RunningAverage:
    """Bias-corrected exponential moving average, the classic plot's line, fed a loss at a time.

    ``avg_i = beta * avg_{i-1} + (1 - beta) * loss_i``, divided by ``1 - beta**(i + 1)``. Source: Gugger 2018.
    """

    def __init__(self, beta: float) -> None:
        """`beta` is the smoothing, from 0 (none) to below 1."""
        self._beta = beta
        self._average = 0.0
        self._rest = 1.0

    def __call__(self, loss: float) -> float:
        """Takes the next loss; returns the average so far."""
        self._average = self._beta * self._average + (1 - self._beta) * loss
        self._rest *= self._beta
        return self._average / (1 - self._rest)


def smooth(losses: Array, beta: float) -> Array:
    """The `RunningAverage` after each loss, shape (n,)."""
    average = RunningAverage(beta)
    return np.array([average(loss) for loss in losses.tolist()])


def windows(lrs: Array, decades: float = WINDOW_DECADES, points: int = WINDOW_POINTS) -> NDArray[np.intp]:
    """First and end index of the window centred on each lr, shape (n, 2).

    A window is `decades` wide in log10(lr), or wider where that holds fewer than `points`.
    """
    n = len(lrs)
    x = np.log10(lrs)
    tolerance = 1e-9  # an lr on the window's border is inside, whatever its last bit
    start = np.searchsorted(x, x - decades / 2 - tolerance)
    end = np.searchsorted(x, x + decades / 2 + tolerance, side="right")
    at = np.arange(n)
    narrow = end - start < points
    start = np.where(narrow, np.clip(at - points // 2, 0, max(n - points, 0)), start)
    end = np.where(narrow, np.minimum(start + points, n), end)
    return np.stack([start, end], axis=1)


def windowed_median(losses: Array, spans: NDArray[np.intp]) -> Array:
    """Median of the raw losses in each window, shape (n,)."""
    starts = spans[:, 0]
    widths = spans[:, 1] - starts
    medians = np.empty(len(spans))
    for width in np.unique(widths).tolist():  # all windows of a width at once: log spacing has few widths
        at = widths == width
        medians[at] = np.median(sliding_window_view(losses, width)[starts[at]], axis=1)
    return medians


@dataclass(frozen=True, eq=False)
class RangeTestCurve:
    """One sweep: the lr and the raw loss of every step that gave a finite loss.

    Parameters
    ----------
    lrs : ndarray of shape (planned steps,)
        The planned learning rates of the whole sweep.
    losses : ndarray of shape (steps,)
        The recorded losses; loss i was taken at ``lrs[i]``. A batch that was passed over has no lr.
    seed : int
        The seed of the sweep.
    smoothing : float
        The running average's beta, from 0 to below 1.
    stopped_at : int, optional
        The step, counted from 1, that ended the sweep early; None if it came to its end.
    stop_reason : str, optional
        Why it ended early: ``not_finite``, ``raised``, ``rose`` (the loss rose for good), ``4x`` (the classic
        rule), or another text; None if it came to its end.
    notes : tuple of str
        What else was seen: bad batches, what was raised.
    divergence : {"auto", "not_finite", "loss_rose"}
        Under ``not_finite`` a loss may rise: the edge is where the loss is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import lrsearch
    >>> lrs = np.geomspace(1e-4, 1, 9)
    >>> losses = np.array([2.0, 2.0, 1.8, 1.4, 1.0, 0.9, 1.1])
    >>> curve = lrsearch.RangeTestCurve(lrs, losses, smoothing=0.5, stopped_at=8, stop_reason="not_finite")
    >>> curve.steps
    7
    >>> round(curve.lr_not_finite, 3)
    0.316
    >>> curve.smoothed.round(2).tolist()
    [2.0, 2.0, 1.89, 1.63, 1.3, 1.1, 1.1]
    >>> lrsearch.RangeTestCurve.from_dict(curve.to_dict()) == curve
    True
    """

    lrs: Array = field(repr=False)
    losses: Array = field(repr=False)
    seed: int = 0
    smoothing: float = 0.98
    stopped_at: int | None = None
    stop_reason: str | None = None
    notes: tuple[str, ...] = ()
    divergence: Divergence = "auto"

    def __eq__(self, other: object) -> bool:
        """Equal settings and, element by element, equal arrays."""
        return isinstance(other, RangeTestCurve) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash

    @property
    def steps(self) -> int:
        """The number of finite losses recorded."""
        return len(self.losses)

    @property
    def recorded_lrs(self) -> Array:
        """The lr of each recorded loss, shape (steps,)."""
        return self.lrs[: self.steps]

    @property
    def lr_not_finite(self) -> float | None:
        """The lr whose loss was not finite, or could no longer be computed; None if there was none."""
        if self.stop_reason not in ("not_finite", "raised") or self.stopped_at is None:
            return None
        return float(self.lrs[self.stopped_at - 1])

    @cached_property
    def smoothed(self) -> Array:
        """The classic running average of the losses, shape (steps,).

        Its formula is ``avg_i = beta * avg_{i-1} + (1 - beta) * loss_i``, divided by ``1 - beta**(i + 1)``,
        with beta the `smoothing`. It lags behind the losses, so no rule reads it except ``minimum`` (a tenth
        of the minimum's lr).

        References
        ----------
        S. Gugger, "How Do You Find A Good Learning Rate", 2018,
        https://sgugger.github.io/how-do-you-find-a-good-learning-rate.html
        """
        return smooth(self.losses, self.smoothing)

    @cached_property
    def median(self) -> Array:
        """The median of the raw losses around each lr, shape (steps,).

        The window is a quarter of a decade wide, or wider where that holds fewer than five losses.
        """
        return windowed_median(self.losses, windows(self.recorded_lrs))

    def columns(self) -> dict[str, Any]:
        """Return the curve as columns.

        Returns
        -------
        dict of str to list
            One value per step: step (from 1), seed, lr, loss, loss_smoothed (the running average) and
            loss_median (the windowed median).
        """
        return {
            "step": list(range(1, self.steps + 1)),
            "seed": [self.seed] * self.steps,
            "lr": self.recorded_lrs.tolist(),
            "loss": self.losses.tolist(),
            "loss_smoothed": self.smoothed.tolist(),
            "loss_median": self.median.tolist(),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the `columns` as a data frame.

        Returns
        -------
        pandas.DataFrame
            One row per step.
        """
        import pandas as pd

        return pd.DataFrame(self.columns())

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as plain JSON.

        Returns
        -------
        dict
            What `from_dict` makes an equal curve of.
        """
        return {
            "lrs": self.lrs.tolist(),
            "losses": self.losses.tolist(),
            "seed": self.seed,
            "smoothing": self.smoothing,
            "stopped_at": self.stopped_at,
            "stop_reason": self.stop_reason,
            "notes": list(self.notes),
            "divergence": self.divergence,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RangeTestCurve:
        """Return the curve that `to_dict` wrote.

        Parameters
        ----------
        values : dict
            What `to_dict` returned.

        Returns
        -------
        RangeTestCurve
            An equal curve.
        """
        arrays = {name: np.asarray(values[name], dtype=np.float64) for name in ("lrs", "losses")}
        return cls(**{**values, **arrays, "notes": tuple(values.get("notes", ()))})
