"""The plots of several studies: what they show, and that no name pushes them out of view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes

from lrsearch.core.comparison import Comparison, compare_studies
from lrsearch.errors import InputError
from lrsearch.report.plots.comparison import plot_comparison, plot_lr_against_batch_size
from lrsearch.report.plots.range_test import file_axes
from tests.report.comparisons import SIZES, comparison_of, studies_of


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return comparison_of()


def labels(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("metric", ["val/loss", "val/accuracy"])
def test_every_answer_is_in_view_and_in_the_legend(metric: str) -> None:
    comparison = comparison_of(metric)
    ax = plot_comparison(comparison, ax=file_axes())
    low, high = ax.get_ylim()
    assert labels(ax) == [f"{name}: linear at 0.1" for name in SIZES]
    assert [row.name for row in comparison.rows if not low < row.objective < high] == []


@pytest.mark.parametrize("metric", ["val/loss", "val/accuracy"])
def test_the_intervals_stand_apart_at_the_bad_end(metric: str) -> None:
    comparison = comparison_of(metric)
    ax = plot_comparison(comparison, ax=file_axes())
    ends = [comparison.rows[0].interval.low, comparison.rows[0].interval.high]
    places = [
        float(np.asarray(line.get_ydata())[0])
        for line in ax.get_lines()
        if [float(x) for x in np.asarray(line.get_xdata())] == ends
    ]
    assert len(set(places)) == len(SIZES)
    assert all(place > 0.7 if metric == "val/loss" else place < 0.3 for place in places)


def test_a_lr_that_diverged_is_a_cross_and_no_point(comparison: Comparison) -> None:
    ax = plot_comparison(comparison, ax=file_axes())
    crosses = [line for line in ax.get_lines() if line.get_marker() == "x"]
    assert [list(np.asarray(line.get_xdata())) for line in crosses] == [[0.8]] * len(SIZES)


def test_the_batch_sizes_have_both_lines_through_the_smallest(comparison: Comparison) -> None:
    ax = plot_lr_against_batch_size(comparison, ax=file_axes())
    lines = {str(line.get_label()): line for line in ax.get_lines()}
    ends = {
        name: [float(lines[name].get_ydata()[k]) for k in (0, -1)]  # type: ignore[index, arg-type]
        for name in ("lr ∝ batch size", "lr ∝ √(batch size)")
    }
    assert ends["lr ∝ batch size"] == pytest.approx([0.1, 0.1 * 8])
    assert ends["lr ∝ √(batch size)"] == pytest.approx([0.1, 0.1 * 8**0.5])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["16", "32", "128"]


def test_without_another_batch_size_there_is_nothing_to_draw_against() -> None:
    same = comparison_of(params={"model": "Net", "optimizer": "SGD", "batch_size": 32})
    with pytest.raises(InputError, match=r"batch_size=\[32, 32, 32\]: it is not what differs"):
        plot_lr_against_batch_size(same, ax=file_axes())


def test_a_long_name_does_not_push_the_legend_out_of_the_picture() -> None:
    studies = studies_of()
    ax = plot_comparison(compare_studies([replace(studies[0], name="n" * 150), *studies[1:]]), ax=file_axes())
    assert max(map(len, labels(ax))) < 70
