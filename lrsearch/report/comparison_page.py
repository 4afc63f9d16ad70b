"""Studies side by side as one self-contained page, without script, that asks for nothing from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lrsearch.core.comparison import Comparison
from lrsearch.report import comparison_tables
from lrsearch.report.tables import format_lr
from lrsearch.report.templates import data_uri, render

_TEMPLATE = "comparison.html.j2"


def draw(comparison: Comparison) -> dict[str, bytes]:
    """The plots as PNG, by name: responses, and batch-sizes where these are what differs."""
    from lrsearch.report.plots.comparison import plot_comparison, plot_lr_against_batch_size
    from lrsearch.report.plots.range_test import file_axes, png

    pictures = {"responses": png(plot_comparison(comparison, ax=file_axes()))}
    if comparison.batch_size_differs:
        pictures["batch-sizes"] = png(plot_lr_against_batch_size(comparison, ax=file_axes()))
    return pictures


def page(comparison: Comparison, pictures: Mapping[str, bytes], clean: Callable[[str], str]) -> str:
    """The whole page as HTML; `clean` takes secrets out of every text that goes into it."""
    return render(
        _TEMPLATE,
        clean,
        comparison=comparison,
        tables=comparison_tables,
        pictures={name: data_uri(picture) for name, picture in pictures.items()},
        answers=", ".join(f"{row.name} at {format_lr(row.lr)}" for row in comparison.rows),
    )
