"""Studies side by side as they are shown: tables, plots, the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import numpy as np
import pytest
from matplotlib.axes import Axes
from rich.console import Console

from lrsearch.core.comparison import Comparison, compare_studies
from lrsearch.core.response import Interval
from lrsearch.errors import InputError
from lrsearch.report.comparison_page import draw, page
from lrsearch.report.comparison_tables import (
    answer_table,
    comparison_dict,
    comparison_html,
    difference_table,
    remark_lines,
    rich_tables,
    sentence,
    setting_table,
)
from lrsearch.report.plots.comparison import plot_comparison, plot_lr_against_batch_size
from lrsearch.report.plots.range_test import file_axes
from tests.report.comparisons import SIZES, comparison_of, studies_of

PIXEL = b"no picture"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return comparison_of()


# --- tables -----------------------------------------------------------------------------------------------


def test_the_sentence_names_the_best_what_it_beats_and_what_it_does_not(comparison: Comparison) -> None:
    assert sentence(comparison) == (
        "small has the best mean val/loss, 0.3316; beyond the noise between seeds it is better than large; "
        "it cannot be told from middle"
    )


def test_a_single_seed_is_said(comparison: Comparison) -> None:
    one = [
        replace(s, answer=replace(s.answer, finalists=(replace(f, objectives={1000: 0.3 + k}),)))
        for k, s in enumerate(studies_of())
        if (f := s.answer.winner)
    ]
    assert "with a single seed nothing can be told of middle and large" in sentence(compare_studies(one))


def test_only_what_differs_has_a_column(comparison: Comparison) -> None:
    head = answer_table(comparison).head
    assert "batch size" in head
    assert not {"task", "model", "optimizer"} & set(head)


def test_every_study_has_its_answer_and_an_open_end_is_marked() -> None:
    studies = studies_of()
    wide = replace(studies[0].answer, interval=Interval(0.05, 0.2, 0.9, low_open=True, high_open=False))
    table = answer_table(compare_studies([replace(studies[0], answer=wide), *studies[1:]]))
    assert [row[0] for row in table.rows] == list(SIZES)
    assert table.rows[0][1:5] == ("16", "0.1", "≤0.05 … 0.2", "linear")


def test_the_differences_are_told_with_their_intervals(comparison: Comparison) -> None:
    rows = {row[0]: row for row in difference_table(comparison).rows}
    assert rows["small"][2:5] == ("–", "–", "best")
    assert rows["middle"][4] == "not told apart"
    _, _, behind, interval, verdict, _ = rows["large"]
    low, high = map(float, interval.split(" … "))
    assert (behind, verdict) == ("0.100", "worse")
    assert 0 < low < 0.1 < high


def test_settings_are_named_as_people_read_them() -> None:
    studies = studies_of()
    plan = studies[0].plan.with_changes(decay={"families": ["linear"]}, baseline=False)
    rows = {
        name: cells
        for name, *cells in setting_table(
            compare_studies([replace(studies[0], plan=plan), *studies[1:]])
        ).rows
    }
    assert rows["batch size"] == ["16", "32", "128"]
    assert rows["plan: baseline"] == ["no", "yes", "yes"]
    assert rows["plan: decay.families"][0] == "linear"


def test_schedules_that_differ_in_a_detail_alone_are_told_apart() -> None:
    studies = studies_of()
    plan = studies[0].plan.with_changes(base_schedule={"name": "constant", "detail": 1})
    table = setting_table(compare_studies([replace(studies[0], plan=plan), *studies[1:]]))
    cells = next(row for row in table.rows if row[0] == "plan: base schedule")
    assert cells[1] != cells[2]


def test_the_remarks_say_at_which_cost_and_what_the_studies_warn_of() -> None:
    studies = studies_of()
    warned = replace(studies[1].answer, warnings={"needs_warmup": "…"})
    lines = "\n".join(remark_lines(compare_studies([studies[0], replace(studies[1], answer=warned)])))
    assert "after 22.2 run-equivalents" in lines
    assert "beware: the studies' own warnings are needs warmup (middle)" in lines


def test_the_tables_fit_an_ordinary_terminal(comparison: Comparison, capsys: Any) -> None:
    for table in rich_tables(comparison)[:2]:
        Console(width=80).print(table)
    lines = capsys.readouterr().out.splitlines()
    assert sum(name in line for line in lines for name in SIZES) == 2 * len(SIZES)
    assert any("linear" in line and "0.1 " in line and "128" in line for line in lines)  # in one line each


def test_json_has_a_study_each_and_nothing_that_json_lacks(comparison: Comparison) -> None:
    found = comparison_dict(comparison)
    assert [study["name"] for study in found["studies"]] == list(SIZES)
    assert found["studies"][0]["behind"] is None
    assert set(found["studies"][2]["interval"]) == {"low", "high", "level", "low_open", "high_open"}
    assert found["differing"] == {"batch_size": list(SIZES.values())}


def test_a_notebook_shows_names_as_text() -> None:
    studies = studies_of()
    shown = comparison_html(compare_studies([replace(studies[0], name="<b>x</b>"), *studies[1:]]))
    assert "&lt;b&gt;x" in shown
    assert "<b>" not in shown


# --- plots ------------------------------------------------------------------------------------------------


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


# --- the page ---------------------------------------------------------------------------------------------


def parsed(comparison: Comparison, pictures: dict[str, bytes]) -> Element:
    text = page(comparison, pictures, lambda text: text.replace("hunter2", "***"))
    html5lib.HTMLParser(strict=True).parse(text)
    found: Element = html5lib.parse(text, namespaceHTMLElements=False)
    return found


def words(root: Element) -> str:
    return " ".join("".join(root.itertext()).split())


def test_the_page_is_valid_and_asks_for_nothing(comparison: Comparison) -> None:
    root = parsed(comparison, draw(comparison))
    sources = [value for node in root.iter() for name in ("src", "href") if (value := node.get(name))]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not list(root.iter("script"))


def test_the_page_says_what_the_tables_say(comparison: Comparison) -> None:
    said = words(parsed(comparison, {"responses": PIXEL}))
    assert sentence(comparison) in said
    for table in (answer_table(comparison), difference_table(comparison), setting_table(comparison)):
        for row in table.rows:
            assert "".join(row).replace(" ", "") in said.replace(" ", "")


def test_every_picture_has_words_for_those_who_do_not_see_it(comparison: Comparison) -> None:
    root = parsed(comparison, {"responses": PIXEL, "batch-sizes": PIXEL})
    assert all(len(image.get("alt", "")) > 40 for image in root.iter("img"))


def test_other_optimizers_are_not_drawn_against_the_batch_size(comparison: Comparison) -> None:
    studies = studies_of()
    params = {**studies[0].params, "optimizer": "Adam"}
    assert list(draw(compare_studies([replace(studies[0], params=params), studies[1]]))) == ["responses"]


def test_what_came_from_outside_is_escaped_and_secrets_are_not_shown() -> None:
    studies = studies_of()
    spoiled = replace(
        studies[0], name="<script>x</script>", params={**studies[0].params, "model": "hunter2\x00<i>"}
    )
    root = parsed(compare_studies([spoiled, *studies[1:]]), {"responses": PIXEL})
    assert not list(root.iter("script"))
    assert not list(root.iter("i"))
    assert "<script>x</script>" in words(root)
    assert "***" in words(root)
    assert "hunter2" not in words(root)
