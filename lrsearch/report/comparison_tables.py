"""Studies side by side: the table and the lines for the terminal, and the same for a notebook and a page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lrsearch.core.comparison import Comparison, ComparisonRow
from lrsearch.core.schedule_names import schedule_name
from lrsearch.report.page_tables import amount
from lrsearch.report.tables import format_lr

if TYPE_CHECKING:
    from rich.table import Table

Row = tuple[str, ...]

_SAID = {
    "best": "best",
    "worse": "worse",
    "not_told_apart": "cannot be told from the best",
    "one_seed": "a single seed: nothing can be told",
}
_PARTS = ("task", "model", "optimizer", "batch_size")
"""What a study may be of; a column each where the studies differ in it."""


def sentence(comparison: Comparison) -> str:
    """What the comparison found, in a sentence."""
    best = comparison.best
    others = [row for row in comparison.rows if row is not best]
    said = [f"{best.name} has the best mean {comparison.metric}, {amount(best.objective)}"]
    for verdict, words in (
        ("worse", "it is really better than"),
        ("not_told_apart", "cannot be told from it:"),
        ("one_seed", "nothing can be told, for want of a second seed, of"),
    ):
        names = [row.name for row in others if row.verdict == verdict]
        if names:
            said.append(f"{words} {_listed(names)}")
    return "; ".join(said)


def comparison_head(comparison: Comparison) -> Row:
    """The columns of `comparison_rows`."""
    level = f"{comparison.rows[0].interval.level:.0%} "
    if len({row.interval.level for row in comparison.rows}) > 1:
        level = ""
    parts = [part.replace("_", " ") for part in _PARTS if _differ(comparison, part)]
    return (
        *("study", *parts, "lr", f"{level}interval", "schedule", comparison.metric, "behind the best by"),
        *("verdict", "at equal cost", "noise", "cost"),
    )


def comparison_rows(comparison: Comparison) -> list[Row]:
    """A row a study, in the order of the comparison."""
    parts = [part for part in _PARTS if _differ(comparison, part)]
    return [
        (
            row.name,
            *(_plain(getattr(row, part)) for part in parts),
            format_lr(row.lr),
            _interval(row),
            schedule_name(row.schedule),
            amount(row.objective),
            _behind(row),
            _SAID[row.verdict],
            amount(row.at_equal_cost),
            f"{row.noise:.2g}",
            f"{row.cost:.3g}",
        )
        for row in comparison.rows
    ]


def number_columns(comparison: Comparison) -> tuple[int, ...]:
    """Which columns of `comparison_rows` hold numbers, to be aligned at their right."""
    head = comparison_head(comparison)
    numbers = {"batch size", "lr", comparison.metric, "at equal cost", "noise", "cost"}
    return tuple(k for k, name in enumerate(head) if name in numbers)


def differing_rows(comparison: Comparison) -> list[Row]:
    """A row a setting that is not the same in all studies, a column a study."""
    return [
        (_spaced(name), *map(_plain, values))
        for name, values in sorted(comparison.differing.items(), key=_order)
    ]


def remark_lines(comparison: Comparison) -> list[str]:
    """How to read the table, what differs, what to beware of, one line each."""
    return [*explanations(comparison), *(f"beware: {caution}" for caution in cautions(comparison))]


def explanations(comparison: Comparison) -> list[str]:
    """What the columns mean, one line each."""
    seeds = sorted({row.seeds for row in comparison.rows})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return [
        f"{comparison.metric}: {comparison.use} value, mean of {counted} fresh "
        f"seed{'' if seeds[-1] == 1 else 's'} of each study's answer",
        f"behind the best by: Welch's t between seeds; all intervals hold together with "
        f"{comparison.level:.0%} confidence",
        f"at equal cost: the best mean that each study knew after {comparison.equal_cost:.3g} run-equivalents "
        "(full trainings), the cheapest study's cost",
    ]


def cautions(comparison: Comparison) -> list[str]:
    """What makes the comparison unfair, and what each study itself warns of."""
    own = [
        f"{row.name} itself warns: {', '.join(name.replace('_', ' ') for name in row.warnings)}"
        for row in comparison.rows
        if row.warnings
    ]
    return [*comparison.cautions, *own]


def comparison_table(comparison: Comparison) -> Table:
    """The studies side by side, for the terminal: what is the same in all of them is left out."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    numbers = number_columns(comparison)
    for k, column in enumerate(comparison_head(comparison)):
        table.add_column(Text(column), overflow="fold", justify="right" if k in numbers else "left")
    for row in comparison_rows(comparison):
        table.add_row(*map(Text, row))
    return table


def differing_table(comparison: Comparison) -> Table:
    """The settings that differ, for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for column in ("what differs", *(row.name for row in comparison.rows)):
        table.add_column(Text(column), overflow="fold")
    for row in differing_rows(comparison):
        table.add_row(*map(Text, row))
    return table


def comparison_html(comparison: Comparison) -> str:
    """The sentence, the studies side by side and what differs, for a notebook."""
    head, rows = comparison_head(comparison), comparison_rows(comparison)
    differing = ("what differs", *(row.name for row in comparison.rows))
    said = "".join(f"<li>{html.escape(line)}</li>" for line in remark_lines(comparison))
    return (
        f"<p>{html.escape(sentence(comparison))}</p>{_html_table(head, rows)}"
        f"{_html_table(differing, differing_rows(comparison))}<ul>{said}</ul>"
    )


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


def _differ(comparison: Comparison, part: str) -> bool:
    return len({getattr(row, part) for row in comparison.rows}) > 1


def _interval(row: ComparisonRow) -> str:
    found = row.interval
    low = f"{'≤ ' if found.low_open else ''}{format_lr(found.low)}"
    return f"{low} … {'≥ ' if found.high_open else ''}{format_lr(found.high)}"


def _behind(row: ComparisonRow) -> str:
    """The difference with its interval."""
    found = row.behind
    if found is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{found.mean:.3g}"
    return f"{found.mean:.3g} ({found.low:.3g} … {found.high:.3g})"


def _order(item: tuple[str, tuple[Any, ...]]) -> bool:
    """What was trained comes first, then the plan."""
    return item[0].startswith("plan.")


def _spaced(name: str) -> str:
    return name.replace("_", " ").replace("plan.", "plan: ", 1)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


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
            return _schedule(value)
        case list() | tuple():
            return ", ".join(map(_plain, value))
        case _:
            return str(value)


def _schedule(schedule: Mapping[str, Any]) -> str:
    settings = {name: value for name, value in schedule.items() if name not in ("name", "inner")}
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
    return f"{schedule_name(schedule)} ({said})" if said else schedule_name(schedule)


def _html_table(head: Row, rows: Sequence[Row]) -> str:
    def cells(row: Row, tag: str) -> str:
        return "".join(f"<{tag} style='text-align:left'>{html.escape(cell)}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{cells(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"
