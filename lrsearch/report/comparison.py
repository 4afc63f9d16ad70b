"""Studies side by side: tables and lines for the terminal and a notebook, and a self-contained page."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lrsearch.core import text
from lrsearch.core.comparison import Comparison, ComparisonRow
from lrsearch.core.table import Row, Table, html_list
from lrsearch.report.page import data_uri, render
from lrsearch.schedules import schedule_name

_SAID = {
    "best": "best",
    "worse": "worse",
    "not_told_apart": "not told apart",
    "one_seed": "undecided: a single seed",
}
_PARTS = ("task", "model", "optimizer", "batch_size")
"""What a study may be of; a column each where the studies differ in it."""


def sentence(comparison: Comparison) -> str:
    """What the comparison found, in a sentence."""
    best = comparison.best
    said = [f"{best.name} has the best mean {comparison.metric}, {text.amount(best.objective)}"]
    for verdict, words in (
        ("worse", "it is better than {} by more than the noise between seeds"),
        ("not_told_apart", "it cannot be told apart from {}"),
        ("one_seed", "a single seed cannot tell it apart from {}"),
    ):
        names = [row.name for row in comparison.rows if row.verdict == verdict]
        if names:
            said.append(words.format(text.listed(names)))
    return "; ".join(said)


def tables(comparison: Comparison) -> list[Table]:
    """The answers, the differences, and the settings that differ, if any."""
    found = [answer_table(comparison), difference_table(comparison), setting_table(comparison)]
    return [table for table in found if table.rows]


def answer_table(comparison: Comparison) -> Table:
    """The answer of each study; what all studies are of is left out."""
    parts = [part for part in _PARTS if len({getattr(row, part) for row in comparison.rows}) > 1]
    levels = {row.interval.level for row in comparison.rows}
    interval = f"{levels.pop():.0%} interval" if len(levels) == 1 else "interval"
    columns = ("study", *map(text.spaced, parts), "lr", interval, "schedule", "noise", "cost")
    rows = [
        (
            row.name,
            *(text.setting(getattr(row, part)) for part in parts),
            *(text.number(row.lr), text.span(row.interval), schedule_name(row.schedule)),
            *(text.number(row.noise), text.number(row.cost)),
        )
        for row in comparison.rows
    ]
    numbers = tuple(k for k, name in enumerate(columns) if name in ("batch size", "lr", "noise", "cost"))
    return Table(rows, columns, numbers=numbers, kinds=_kinds(comparison))


def difference_table(comparison: Comparison) -> Table:
    """The objective of each study, and what is to be made of its difference from the best."""
    columns = ("study", comparison.metric, "behind by", "interval", "verdict", "at equal cost")
    rows = [
        (
            row.name,
            text.amount(row.objective),
            *_behind(row),
            _SAID[row.verdict],
            text.amount(row.at_equal_cost),
        )
        for row in comparison.rows
    ]
    return Table(rows, columns, numbers=(1, 2, 5), kinds=_kinds(comparison))


def setting_table(comparison: Comparison) -> Table:
    """A row a setting that is not the same in all studies: what was trained, then the plan."""
    settings = sorted(comparison.differing.items(), key=lambda item: item[0].startswith("plan."))
    rows = [(_setting_name(name), *_told_apart(values)) for name, values in settings]
    return Table(rows, ("what differs", *(row.name for row in comparison.rows)))


def remark_lines(comparison: Comparison) -> list[str]:
    """How to read the tables, and what to beware of, one line each."""
    return [*explanations(comparison), *(f"caution: {caution}" for caution in cautions(comparison))]


def explanations(comparison: Comparison) -> list[str]:
    """What the columns mean, one line each."""
    seeds = sorted({row.seeds for row in comparison.rows})
    counted = text.count(seeds[0], "fresh seed")
    if len(seeds) > 1:
        counted = f"{seeds[0]} to {text.count(seeds[-1], 'fresh seed')}"
    pairs = len(comparison.rows) * (len(comparison.rows) - 1) // 2
    together = "" if pairs == 1 else f", wide enough to hold for all {pairs} pairs of studies at once"
    return [
        f"{comparison.metric}: the {comparison.use} value under the study's answer, the mean of {counted}",
        f"behind by: the difference from the best, with its {comparison.level:.0%} interval by Welch's t "
        f"between seeds{together}",
        f"at equal cost: the best mean that the study had after {text.number(comparison.equal_cost)} "
        "run-equivalents (the cost of the cheapest study), over the seeds run by then; over a single seed it "
        "may flatter the study",
        "noise: the standard deviation between seeds; cost: in run-equivalents (full trainings)",
    ]


def cautions(comparison: Comparison) -> list[str]:
    """What makes the comparison unfair, and what the studies themselves warn of."""
    names = dict.fromkeys(name for row in comparison.rows for name in row.warnings)
    own = [
        f"{text.spaced(name)} ({', '.join(row.name for row in comparison.rows if name in row.warnings)})"
        for name in names
    ]
    return [*comparison.cautions, *([f"the studies' own warnings are {'; '.join(own)}"] if own else [])]


def comparison_html(comparison: Comparison) -> str:
    """The sentence, the tables and the remarks, for a notebook."""
    shown = "".join(table.to_html() for table in tables(comparison))
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
        "comparison.html.j2",
        clean,
        comparison=comparison,
        found=sentence(comparison),
        answers=answer_table(comparison),
        differences=difference_table(comparison),
        settings=setting_table(comparison),
        explanations=explanations(comparison),
        cautions=cautions(comparison),
        pictures={name: data_uri(picture) for name, picture in pictures.items()},
        alternative=", ".join(f"{row.name} at {text.number(row.lr)}" for row in comparison.rows),
    )


def _kinds(comparison: Comparison) -> list[str]:
    return ["winner" if row.name == comparison.best.name else "" for row in comparison.rows]


def _behind(row: ComparisonRow) -> Row:
    """The difference from the best, and its interval."""
    if row.behind is None:
        return text.NONE, text.NONE
    return text.signed(row.behind.mean), text.bounds(row.behind.low, row.behind.high)


def _setting_name(name: str) -> str:
    return text.spaced(name).replace("plan.", "plan: ", 1)


def _told_apart(values: Sequence[Any]) -> Row:
    """Settings as people read them, with every detail only where they would look the same without."""
    short = tuple(map(text.setting, values))
    return short if len(set(short)) > 1 else tuple(map(str, values))
