"""Finished studies side by side: read from their folders, compared, shown."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.core.comparison import ComparedStudy, Comparison, ComparisonRow, compare_studies
from lrsearch.errors import InputError
from lrsearch.schedules import schedule_name
from lrsearch.study.load import load_study
from lrsearch.study.result import StudyResult
from lrsearch.tracking.folder import find_folder

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class ComparisonResult:
    """Several studies side by side.

    Parameters
    ----------
    comparison : Comparison
        All that was found: a row for each study, in ``comparison.rows``.

    Examples
    --------
    Here "small" and "wide" are the names of studies that are finished:

    >>> import lrsearch
    >>> both = lrsearch.compare("small", "wide")
    >>> both
    ComparisonResult(small, wide; best='...')
    >>> sorted(both.to_frame()["name"])
    ['small', 'wide']
    >>> both.report("both.html").name
    'both.html'
    """

    comparison: Comparison

    def __repr__(self) -> str:
        names = ", ".join(row.name for row in self.comparison.rows)
        return f"ComparisonResult({names}; best={self.best!r})"

    @property
    def best(self) -> str:
        """The name of the study with the best mean objective on fresh seeds."""
        return self.comparison.best.name

    def to_frame(self) -> pd.DataFrame:
        """Return the comparison as a data frame.

        Returns
        -------
        pandas.DataFrame
            One row per study: its setting, answer, interval, objective and cost, and the difference from the
            best.
        """
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self.comparison.rows])

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON.

        Returns
        -------
        dict
            All that was found; what is absent is None.
        """
        from lrsearch.report.comparison import comparison_dict

        return comparison_dict(self.comparison)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the objective of all studies against the lr, on one axis.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default on a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from lrsearch.report.plots.comparison import plot_comparison

        return plot_comparison(self.comparison, ax=ax)

    def plot_lr_against_batch_size(self, ax: Axes | None = None) -> Axes:
        """Draw the lrs of the answers against the batch size.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default on a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.

        Raises
        ------
        InputError
            Unless the batch size is what differs: it is known, and the studies have one model and one
            optimizer.
        """
        from lrsearch.report.plots.comparison import plot_lr_against_batch_size

        return plot_lr_against_batch_size(self.comparison, ax=ax)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the comparison as one page of HTML.

        Parameters
        ----------
        path : str or path
            The file to write.

        Returns
        -------
        pathlib.Path
            The file written.

        Raises
        ------
        InputError
            If the path cannot be written.
        """
        from lrsearch.report.comparison import draw, page
        from lrsearch.study.gather import write_page
        from lrsearch.tracking.provenance import clean

        return write_page(page(self.comparison, draw(self.comparison), clean), Path(path))

    def _repr_html_(self) -> str:
        from lrsearch.report.comparison import comparison_html

        return comparison_html(self.comparison)


def _flat(row: ComparisonRow) -> dict[str, Any]:
    """A study with plain values only, for a frame."""
    interval, behind = row.interval, row.behind
    return {
        **{name: getattr(row, name) for name in ("name", "task", "model", "optimizer", "batch_size", "lr")},
        "schedule": schedule_name(row.schedule),
        "interval_low": interval.low,
        "interval_high": interval.high,
        **{name: getattr(row, name) for name in ("objective", "seeds", "noise", "cost", "at_equal_cost")},
        "behind": 0.0 if behind is None else behind.mean,
        "behind_low": None if behind is None else behind.low,
        "behind_high": None if behind is None else behind.high,
        "verdict": row.verdict,
    }


def compare(*names: str) -> ComparisonResult:
    """Hold finished studies against each other: their answers, and which differences are real.

    Parameters
    ----------
    *names : str
        The names of at least two studies of one objective, or the paths of their folders.

    Returns
    -------
    ComparisonResult
        The studies side by side.

    Raises
    ------
    InputError
        For an unknown name (the message lists those there are), for fewer than two names, for the same study
        twice, and for studies of different objectives.
    RecordError
        For a study that is not finished, or damaged.

    Examples
    --------
    Here "small" and "wide" are the names of studies that are finished:

    >>> import lrsearch
    >>> both = lrsearch.compare("small", "wide")
    >>> both.best in ("small", "wide")
    True
    """
    if len(names) < 2:
        raise InputError("names", list(names), "there is nothing to compare", "name at least two studies")
    folders = {name: find_folder(name) for name in names}
    places = [folders[name].path.resolve() for name in names]
    for k, place in enumerate(places):
        if place in places[:k]:
            raise InputError("names", names[k], "is named twice", "name each study once")
    short = [folder.name for folder in folders.values()]
    studies = [
        # the path, where two folders bear the same name
        _compared(load_study(folder), folder.name if short.count(folder.name) == 1 else name)
        for name, folder in folders.items()
    ]
    return ComparisonResult(compare_studies(studies))


def _compared(result: StudyResult, name: str) -> ComparedStudy:
    config = result.config
    return ComparedStudy(
        name=name,
        task=config.task,
        answer=result.answer,
        stages=result.stages,
        plan=config.plan,
        total_steps=config.total_steps,
        steps_per_epoch=config.steps_per_epoch,
        params={**config.task_kwargs, **config.model_info},
        data=config.data,
    )
