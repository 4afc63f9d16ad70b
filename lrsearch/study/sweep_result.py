"""What a range test gives back, and how it is read again from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lrsearch.core.curve import RangeTestCurve
from lrsearch.core.suggest import suggest
from lrsearch.core.suggestion import Suggestion
from lrsearch.errors import RecordError
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.reading import read_start
from lrsearch.tracking.status import RecordStatus
from lrsearch.tracking.sync import Mirror

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class RangeTest(RecordStatus):
    """The result of a range test: one curve per seed, and the suggestion read from them.

    Parameters
    ----------
    curves : tuple of RangeTestCurve
        One per seed.
    suggestion : Suggestion
        The answer of all curves together.
    task : str
        The name of what was swept.
    folder : StudyFolder, optional
        The folder that holds the record; None without tracking.
    mirror : Mirror, optional
        The process that fills MLflow; None without tracking, and for a test that was loaded.
    key : str, optional
        What identifies the test's run; it is the run's tag ``lrsearch.key``. None without tracking.

    Examples
    --------
    >>> import numpy as np
    >>> import lrsearch
    >>> from lrsearch.core.suggest import suggest
    >>> lrs = np.geomspace(1e-5, 10, 120)
    >>> losses = 1 - 0.9 / (1 + (0.01 / lrs) ** 2) + (lrs / 0.5) ** 2
    >>> curve = lrsearch.RangeTestCurve(lrs, losses)
    >>> found = lrsearch.RangeTest((curve,), suggest(curve), task="synthetic")
    >>> found
    RangeTest('synthetic', lr=0.0..., verdict='ok', steps=120)
    >>> found.to_frame().columns.tolist()
    ['step', 'seed', 'lr', 'loss', 'loss_smoothed', 'loss_median']
    >>> found.tracking
    'off'
    """

    curves: tuple[RangeTestCurve, ...]
    suggestion: Suggestion
    task: str
    folder: StudyFolder | None = None
    mirror: Mirror | None = field(default=None, compare=False)
    key: str | None = None

    def __repr__(self) -> str:
        found = self.suggestion
        return f"RangeTest({self.task!r}, lr={found.lr}, verdict={found.verdict!r}, steps={self.steps})"

    @property
    def suggestions(self) -> tuple[Suggestion, ...]:
        """The suggestion of each seed's curve alone."""
        return tuple(suggest(curve) for curve in self.curves)

    @property
    def lr(self) -> float | None:
        """The suggested lr; None unless the verdict is ``ok`` or ``rules_disagree``."""
        return self.suggestion.lr

    @property
    def steps(self) -> int:
        """The number of finite losses recorded, over all curves."""
        return sum(curve.steps for curve in self.curves)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss against the lr, with the suggestion and the bracket.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default on a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from lrsearch.report.plots.range_test import plot_range_test

        return plot_range_test(self.curves, self.suggestion, title=self.task, ax=ax)

    def to_frame(self) -> pd.DataFrame:
        """Return the curves as a data frame.

        Returns
        -------
        pandas.DataFrame
            One row per step, with the columns step, seed, lr, loss, loss_smoothed and loss_median; see
            `RangeTestCurve.columns`.
        """
        import pandas as pd

        return pd.concat([curve.to_frame() for curve in self.curves], ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON.

        Returns
        -------
        dict
            The suggestion, the steps, how each curve ended, and where the record is. Absent values are None,
            and so is a run_id that is still pending.
        """
        found = self.suggestion.to_dict()
        return {
            **{
                name: found[name]
                for name in ("lr", "rule", "bracket", "verdict", "reason", "rules", "spread")
            },
            "groups": list(self.suggestion.groups) or None,
            "task": self.task,
            "steps": self.steps,
            "stopped_at": self.curves[0].stopped_at if len(self.curves) == 1 else None,
            "curves": [
                {
                    "seed": curve.seed,
                    "steps": curve.steps,
                    "stopped_at": curve.stopped_at,
                    "stop_reason": curve.stop_reason,
                }
                for curve in self.curves
            ],
            "name": self.folder and self.folder.name,
            "folder": self.folder and str(self.folder.path),
            "run_id": self.run_id_now,
            "tracking": self.tracking,
        }

    def _repr_html_(self) -> str:
        from lrsearch.report.range_test import range_test_table

        return range_test_table(self.curves, self.suggestion, self.task).to_html()


def load_range_test(folder: StudyFolder) -> RangeTest:
    """Reads a range test from its folder; RecordError where its file is missing or damaged."""
    path = folder.path / "curve.json"
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        curves = tuple(RangeTestCurve.from_dict(curve) for curve in values["curves"])
        suggestion = Suggestion.from_dict(values["suggestion"])
        starts = [read_start(journal) for journal in folder.journals()]
        key = next((start.key for start in starts if start.kind == "range_test"), None)
        return RangeTest(curves, suggestion, task=values["task"], folder=folder, key=key)
    except FileNotFoundError:
        raise RecordError(f"{folder.name}: no finished range test there ({path} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is damaged: {error!r}") from error
