"""Studies side by side: the table and the lines for the terminal, and the same for a notebook and a page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lrsearch.core.comparison import Comparison, ComparisonRow, Difference
from lrsearch.report.page_tables import amount
from lrsearch.report.tables import format_lr, html_list, html_table
from lrsearch.schedules import schedule_name

if TYPE_CHECKING:
    from rich.table import Table

Row = tuple[str, ...]

_SAID = {
    "best": "best",
    "worse": "worse",
    "not_told_apart": "not told apart",
    "one_seed": "nothing can be told: a single seed",
}
_PARTS = ("task", "model", "optimizer", "batch_size")
"""What a study may be of; a column each where the studies differ in it."""


def sentence(comparison: Comparison) -> str:
    """What the comparison found, in a sentence."""
    best = comparison.best
    said = [f"{best.name} has the best mean {comparison.metric}, {amount(best.objective)}"]
    for verdict, words in (
        ("worse", "beyond the noise between seeds it is better than"),
        ("not_told_apart", "it cannot be told from"),
        ("one_seed", "with a single seed nothing can be told of"),
    ):
        names = [row.name for row in comparison.rows if row.verdict == verdict]
        if names:
            said.append(f"{words} {_listed(names)}")
    return "; ".join(said)


@dataclass(frozen=True)
class TextTable:
    """A table of plain text; `numbers` are the columns that are aligned at their right."""

    head: Row
    rows: Sequence[Row]
    numbers: tuple[int, ...] = ()


def tables(comparison: Comparison) -> list[TextTable]:
    """The answers, the differences, and the settings that differ, if any."""
    found = [answer_table(comparison), difference_table(comparison), setting_table(comparison)]
    return [table for table in found if table.rows]


def answer_table(comparison: Comparison) -> TextTable:
    """The answer of each study; what all studies are of is left out."""
    parts = [part for part in _PARTS if len({getattr(row, part) for row in comparison.rows}) > 1]
    levels = {row.interval.level for row in comparison.rows}
    interval = f"{levels.pop():.0%} interval" if len(levels) == 1 else "interval"
    head = ("study", *(part.replace("_", " ") for part in parts), "lr", interval, "schedule", "noise", "cost")
    rows = [
        (
            row.name,
            *(_plain(getattr(row, part)) for part in parts),
            format_lr(row.lr),
            _interval(row),
            schedule_name(row.schedule),
            f"{row.noise:.2g}",
            f"{row.cost:.3g}",
        )
        for row in comparison.rows
    ]
    numbers = tuple(k for k, name in enumerate(head) if name in ("batch size", "lr", "noise", "cost"))
    return TextTable(head, rows, numbers)


def difference_table(comparison: Comparison) -> TextTable:
    """The objective of each study, and what is to be made of its difference from the best."""
    head = ("study", comparison.metric, "behind by", "interval", "verdict", "at equal cost")
    rows = [
        (
            row.name,
            amount(row.objective),
            "–" if row.behind is None else f"{row.behind.mean:#.3g}",
            _bounds(row.behind),
            _SAID[row.verdict],
            amount(row.at_equal_cost),
        )
        for row in comparison.rows
    ]
    return TextTable(head, rows, numbers=(1, 2, 5))


def setting_table(comparison: Comparison) -> TextTable:
    """A row a setting that is not the same in all studies: what was trained, then the plan."""
    settings = sorted(comparison.differing.items(), key=lambda item: item[0].startswith("plan."))
    rows = [(_spaced(name), *_told_apart(values)) for name, values in settings]
    return TextTable(("what differs", *(row.name for row in comparison.rows)), rows)


def remark_lines(comparison: Comparison) -> list[str]:
    """How to read the table, what differs, what to beware of, one line each."""
    return [*explanations(comparison), *(f"beware: {caution}" for caution in cautions(comparison))]


def explanations(comparison: Comparison) -> list[str]:
    """What the columns mean, one line each."""
    seeds = sorted({row.seeds for row in comparison.rows})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    pairs = len(comparison.rows) * (len(comparison.rows) - 1) // 2
    together = "" if pairs == 1 else f", wide enough that all {pairs} pairs of studies hold together"
    return [
        f"{comparison.metric}: its {comparison.use} value under the study's answer, mean of {counted} fresh "
        f"seed{'' if seeds[-1] == 1 else 's'}",
        f"behind by: the difference from the best, with its {comparison.level:.0%} interval by Welch's t "
        f"between seeds{together}",
        f"at equal cost: the best mean that the study knew after {comparison.equal_cost:.3g} run-equivalents "
        "(the cheapest study's cost), over the seeds it had by then: a single one may flatter it",
        "noise: standard deviation between seeds; cost: in run-equivalents (full trainings)",
    ]


def cautions(comparison: Comparison) -> list[str]:
    """What makes the comparison unfair, and what the studies themselves warn of."""
    names = dict.fromkeys(name for row in comparison.rows for name in row.warnings)
    own = [
        f"{name.replace('_', ' ')} ({', '.join(row.name for row in comparison.rows if name in row.warnings)})"
        for name in names
    ]
    return [*comparison.cautions, *([f"the studies' own warnings are {'; '.join(own)}"] if own else [])]


def rich_tables(comparison: Comparison) -> list[Table]:
    """The same tables for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    found = []
    for text in tables(comparison):
        table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        for k, column in enumerate(text.head):
            table.add_column(Text(column), overflow="fold", justify="right" if k in text.numbers else "left")
        for row in text.rows:
            table.add_row(*map(Text, row))
        found.append(table)
    return found


def comparison_html(comparison: Comparison) -> str:
    """The sentence, the tables and the remarks, for a notebook."""
    shown = "".join(html_table(table.rows, head=table.head) for table in tables(comparison))
    return f"<p>{html.escape(sentence(comparison))}</p>{shown}{html_list(remark_lines(comparison))}"


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """Plain JSON; what is absent is None."""
    return {
        "best": comparison.best.name,
        "metric": comparison.metric,
        "direction": comparison.direction,
        "use": comparison.use,
        "level": comparison.level,
        "equal_cost_run_equivalents": comparison.equal_cost,
        "studies": [row_dict(row) for row in comparison.rows],
        "differing": {name: list(values) for name, values in comparison.differing.items()},
        "cautions": list(comparison.cautions),
    }


def row_dict(row: ComparisonRow) -> dict[str, Any]:
    """Plain JSON of one study."""
    return {**asdict(row), "schedule": dict(row.schedule), "warnings": list(row.warnings)}


def _interval(row: ComparisonRow) -> str:
    found = row.interval
    low = f"{'≤' if found.low_open else ''}{format_lr(found.low)}"
    return f"{low} … {'≥' if found.high_open else ''}{format_lr(found.high)}"


def _bounds(behind: Difference | None) -> str:
    if behind is None:
        return "–"
    if behind.low is None or behind.high is None:
        return "none"
    return f"{behind.low:#.3g} … {behind.high:#.3g}"


def _spaced(name: str) -> str:
    return name.replace("_", " ").replace("plan.", "plan: ", 1)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _told_apart(values: Sequence[Any]) -> Row:
    """Settings as people read them, with every detail only where they would look the same without."""
    short = tuple(map(_plain, values))
    return short if len(set(short)) > 1 else tuple(map(str, values))


def _plain(value: Any) -> str:
    """A setting as people read it; schedules by their names."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:g}"
        case Mapping() if "name" in value:
            return schedule_name(value)
        case list() | tuple():
            return ", ".join(map(_plain, value))
        case _:
            return str(value)
