"""Tables of results, as rich renderables for the terminal and as HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lrsearch.core.curve import RangeTestCurve
from lrsearch.core.suggest import RULES, Suggestion

if TYPE_CHECKING:
    from rich.table import Table

RULE_READS = {
    "walls": "a third of the way from where half of the fall is done to the edge",
    "minimum": "a tenth of the lr of the running average's minimum",
    "steepest": "where the loss falls fastest",
    "valley": "halfway down the longest decrease",
}


_STOPS = {
    "rose": "the loss had risen for good",
    "4x": "the running average was four times its minimum",
    "not_finite": "the loss was not finite",
}


def format_lr(lr: float | None) -> str:
    """An lr as people read it: three significant digits, or a dash."""
    return "–" if lr is None else f"{lr:.3g}"


def range_test_rows(curves: Sequence[RangeTestCurve], suggestion: Suggestion) -> list[tuple[str, str, str]]:
    """What a range test found, as rows of name, value and remark."""
    bracket = suggestion.bracket
    shown = "–" if bracket is None else f"{format_lr(bracket.low)} … {format_lr(bracket.high)}"
    rows = [
        (
            "suggested lr",
            format_lr(suggestion.lr),
            f"rule {suggestion.rule}" if suggestion.lr else "no number is better than a made-up one",
        ),
        ("verdict", suggestion.verdict, suggestion.reason),
        ("bracket", shown, "where to search; its upper end is the edge"),
    ]
    rows += [
        (f"  {name}", format_lr(suggestion.rules[name]), RULE_READS[name])
        for name in RULES
        if name in suggestion.rules
    ]
    for curve in curves:
        ended = "ran to its end"
        if curve.stop_reason is not None:
            ended = f"stopped at step {curve.stopped_at}: {_STOPS.get(curve.stop_reason, curve.stop_reason)}"
        rows.append((f"seed {curve.seed}", f"{curve.steps} steps", ended))
    return rows


def range_test_table(curves: Sequence[RangeTestCurve], suggestion: Suggestion, task: str) -> Table:
    """The closing table of a range test in the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(f"range test of {task}"), box=SIMPLE_HEAD, show_header=False, title_justify="left"
    )
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(style="dim")
    for row in range_test_rows(curves, suggestion):
        table.add_row(*(Text(cell) for cell in row))
    return table


def status_table(rows: Sequence[tuple[str, ...]]) -> Table:
    """The studies and range tests there are, a row each."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for column in ("name", "state", "trials", "answer", "objective", "MLflow", "last written"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def range_test_html(curves: Sequence[RangeTestCurve], suggestion: Suggestion, task: str) -> str:
    """The same table for a notebook."""
    rows = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in range_test_rows(curves, suggestion)
    )
    return f"<table><caption>range test of {html.escape(task)}</caption><tbody>{rows}</tbody></table>"
