"""Finished studies side by side: read from their folders, compared, shown."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.core.comparison import ComparedStudy, Comparison, ComparisonRow, compare_studies
from lrsearch.errors import InputError
from lrsearch.schedules import schedule_name
from lrsearch.study.result import StudyResult, load_study
from lrsearch.tracking.folder import find_folder

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class ComparisonResult:
    """Studies side by side. `comparison` holds all that was found; the best stands in `best`."""

    comparison: Comparison

    def __repr__(self) -> str:
        names = ", ".join(row.name for row in self.comparison.rows)
        return f"ComparisonResult({names}; best={self.best!r})"

    @property
    def best(self) -> str:
        """The name of the study of the best mean objective on fresh seeds."""
        return self.comparison.best.name

    def to_frame(self) -> pd.DataFrame:
        """One row a study: setting, answer, interval, objective, cost, and the difference from the best."""
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self.comparison.rows])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; what is absent is None."""
        from lrsearch.report.comparison import comparison_dict

        return comparison_dict(self.comparison)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the objective of all studies against lr on one axis; returns the axes."""
        from lrsearch.report.plots.comparison import plot_comparison

        return plot_comparison(self.comparison, ax=ax)

    def plot_lr_against_batch_size(self, ax: Axes | None = None) -> Axes:
        """Draws the answers' lrs against the batch size; returns the axes.

        Raises InputError unless the batch size is what differs: known, and with one model and optimizer.
        """
        from lrsearch.report.plots.comparison import plot_lr_against_batch_size

        return plot_lr_against_batch_size(self.comparison, ax=ax)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Writes the comparison as one page of HTML; returns where.

        Raises InputError where the path cannot be written.
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
    """Holds finished studies against each other: their answers, and which differences are real.

    Raises InputError for an unknown name, listing those there are, for fewer than two, for the same study
    twice, and for studies of different objectives; RecordError for one that is not finished or damaged.
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
