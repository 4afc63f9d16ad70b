"""What a range test found: the closing table, and the description of its run in MLflow."""

from __future__ import annotations

from collections.abc import Sequence

from lrsearch.core import text
from lrsearch.core.curve import RangeTestCurve
from lrsearch.core.suggestion import GROUPS_READ, Suggestion
from lrsearch.core.table import Table, escape_markdown

_STOPS = {
    "rose": "the loss had risen for good",
    "4x": "the running average was four times its minimum",
    "not_finite": "the loss was not finite",
    "raised": "the training raised an error",
}


def range_test_table(curves: Sequence[RangeTestCurve], suggestion: Suggestion, task: str) -> Table:
    """The suggestion's rows, then a row a curve that says how it ended."""
    rows = [(f"seed {curve.seed}", text.count(curve.steps, "step"), _ended(curve)) for curve in curves]
    return Table([*suggestion.to_table().rows, *rows], title=f"range test of {task}")


def describe_range_test(suggestion: Suggestion) -> str:
    """The suggestion in Markdown, for a run's description."""
    bracket, found = suggestion.bracket, suggestion.lr
    lines = ["**No suggestion**" if found is None else f"**Learning rate {text.number(found)}**"]
    lines.append(f"Verdict `{suggestion.verdict}`: {escape_markdown(suggestion.reason)}.")
    if len(suggestion.groups) > 1:
        lines.append(f"Param groups: {text.groups(suggestion.groups)}; {GROUPS_READ}.")
    if bracket is not None:
        lines.append(f"Bracket: {text.bracket(bracket.low, bracket.high)}.")
    return "\n\n".join(lines)


def _ended(curve: RangeTestCurve) -> str:
    if curve.stop_reason is None:
        return "ran to its end"
    return f"stopped at step {curve.stopped_at}: {_STOPS.get(curve.stop_reason, curve.stop_reason)}"
