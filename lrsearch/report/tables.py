"""Tables of results, as rich renderables for the terminal and as HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
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

_GROUPS_SHOWN = 4
GROUPS_READ = "lr is that of param group 0; the others keep their ratios to it"


_STOPS = {
    "rose": "the loss had risen for good",
    "4x": "the running average was four times its minimum",
    "not_finite": "the loss was not finite",
}


def format_lr(lr: float | None) -> str:
    """An lr as people read it: three significant digits, or a dash."""
    return "–" if lr is None else f"{lr:.3g}"


def format_groups(suggestion: Suggestion) -> str:
    """The suggested lrs of the param groups, in their order; of many the first ones."""
    groups = suggestion.groups
    shown = ", ".join(map(format_lr, groups[:_GROUPS_SHOWN]))
    return shown if len(groups) <= _GROUPS_SHOWN else f"{shown} … ({len(groups)} groups)"


def suggestion_rows(suggestion: Suggestion) -> list[tuple[str, str, str]]:
    """A suggestion as rows of name, value and remark."""
    bracket = suggestion.bracket
    shown = "–" if bracket is None else f"{format_lr(bracket.low)} … {format_lr(bracket.high)}"
    found = f"rule {suggestion.rule}" if suggestion.lr else "no number is better than a made-up one"
    groups = [("  of the groups", format_groups(suggestion), GROUPS_READ)]
    return [
        ("suggested lr", format_lr(suggestion.lr), found),
        *(groups if len(suggestion.groups) > 1 else ()),
        ("verdict", suggestion.verdict, suggestion.reason),
        ("bracket", shown, "where to search; its upper end is the edge"),
        *(
            (f"  {name}", format_lr(suggestion.rules[name]), RULE_READS[name])
            for name in RULES
            if name in suggestion.rules
        ),
    ]


def range_test_rows(curves: Sequence[RangeTestCurve], suggestion: Suggestion) -> list[tuple[str, str, str]]:
    """What a range test found: the suggestion's rows, then one a curve."""
    rows = suggestion_rows(suggestion)
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
    """The closing table for a notebook."""
    return html_table(range_test_rows(curves, suggestion), caption=f"range test of {task}")


def suggestion_html(suggestion: Suggestion) -> str:
    """A suggestion for a notebook."""
    return html_table(suggestion_rows(suggestion), caption="suggestion")


def html_table(rows: Iterable[Sequence[str]], *, head: Sequence[str] = (), caption: str = "") -> str:
    """A table of plain text for a notebook; every cell is escaped."""
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    columns = f"<thead><tr>{_cells(head, 'th')}</tr></thead>" if head else ""
    body = "".join(f"<tr>{_cells(row, 'td')}</tr>" for row in rows)
    return f"<table>{title}{columns}<tbody>{body}</tbody></table>"


def html_list(lines: Iterable[str]) -> str:
    """Lines of plain text as a list for a notebook; every one is escaped."""
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"


def _cells(row: Sequence[str], tag: str) -> str:
    return "".join(f"<{tag} style='text-align:left'>{html.escape(cell)}</{tag}>" for cell in row)
