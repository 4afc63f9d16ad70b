"""Studies side by side as they are shown: tables and the page."""

from __future__ import annotations

from dataclasses import replace
from xml.etree.ElementTree import Element

import html5lib
import pytest

from lrsearch.core.comparison import Comparison, compare_studies
from lrsearch.core.response import Interval
from lrsearch.report.comparison import (
    answer_table,
    comparison_dict,
    comparison_html,
    difference_table,
    draw,
    page,
    remark_lines,
    sentence,
    setting_table,
    tables,
)
from tests.report.comparisons import SIZES, comparison_of, studies_of
from tests.report.shown import printed

PIXEL = b"no picture"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return comparison_of()


# --- tables -----------------------------------------------------------------------------------------------


def test_the_sentence_names_the_best_what_it_beats_and_what_it_does_not(comparison: Comparison) -> None:
    assert sentence(comparison) == (
        "small has the best mean val/loss, 0.3316; it is better than large by more than the noise between "
        "seeds; it cannot be told apart from middle"
    )


def test_a_single_seed_is_said(comparison: Comparison) -> None:
    one = [
        replace(s, answer=replace(s.answer, finalists=(replace(f, objectives={1000: 0.3 + k}),)))
        for k, s in enumerate(studies_of())
        if (f := s.answer.winner)
    ]
    assert "a single seed cannot tell it apart from middle and large" in sentence(compare_studies(one))


def test_only_what_differs_has_a_column(comparison: Comparison) -> None:
    head = answer_table(comparison).columns
    assert "batch size" in head
    assert not {"task", "model", "optimizer"} & set(head)


def test_every_study_has_its_answer_and_an_open_end_is_marked() -> None:
    studies = studies_of()
    wide = replace(studies[0].answer, interval=Interval(0.05, 0.2, 0.9, low_open=True, high_open=False))
    table = answer_table(compare_studies([replace(studies[0], answer=wide), *studies[1:]]))
    assert [row[0] for row in table.rows] == list(SIZES)
    assert table.rows[0][1:5] == ("16", "0.1", "0.05 or lower to 0.2", "linear")


def test_the_differences_are_told_with_their_intervals(comparison: Comparison) -> None:
    rows = {row[0]: row for row in difference_table(comparison).rows}
    assert rows["small"][2:5] == ("–", "–", "best")
    assert rows["middle"][4] == "not told apart"
    _, _, behind, interval, verdict, _ = rows["large"]
    low, high = map(float, interval.split(" to "))
    assert (behind, verdict) == ("+0.100", "worse")
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
    assert "caution: the studies' own warnings are needs warmup (middle)" in lines


def test_the_tables_fit_an_ordinary_terminal(comparison: Comparison) -> None:
    lines = "".join(printed(table, width=80) for table in tables(comparison)[:2]).splitlines()
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
