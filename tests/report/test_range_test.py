"""What a range test found: in the terminal, in a notebook, in MLflow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lrsearch.core.suggestion import Suggestion
from lrsearch.core.table import Table
from lrsearch.report.range_test import describe_range_test, range_test_table
from tests.report.curves import CURVES, suggestion_of
from tests.report.shown import Reader, printed


def table_of(name: str, task: str = "digits") -> Table:
    return range_test_table(CURVES[name], suggestion_of(CURVES[name]), task)


@pytest.mark.parametrize("name", CURVES)
def test_every_verdict_prints(name: str) -> None:
    text = printed(table_of(name))
    found = suggestion_of(CURVES[name])
    assert found.verdict in text
    assert "digits" in text
    for number in (found.lr, found.bracket and found.bracket.low, *found.rules.values()):
        assert number is None or f"{number:.3g}" in text


@pytest.mark.parametrize("name", CURVES)
def test_a_suggestion_shows_itself_in_a_notebook(name: str) -> None:
    found = suggestion_of(CURVES[name])
    page = Reader(found._repr_html_())
    assert page.open == []
    assert found.reason in page.text
    assert all(f"{lr:.3g}" in page.text for lr in found.rules.values())


def test_no_number_is_shown_where_there_is_none() -> None:
    text = printed(table_of("flat"))
    row = next(line for line in text.splitlines() if "suggested lr" in line)
    assert not any(char.isdigit() for char in row)


def test_each_seed_has_a_row_that_says_how_it_ended() -> None:
    rows = [row for row in table_of("ok, three seeds").rows if row[0].startswith("seed ")]
    assert rows == [(f"seed {k}", "200 steps", "ran to its end") for k in range(3)]
    assert "stopped at step 79: the loss was not finite" in printed(table_of("ok, NaN tail"))


def test_what_comes_from_outside_is_escaped_in_html() -> None:
    attack = "<script>alert('&')</script>"
    curves = CURVES["flat"]
    found = suggestion_of(curves)
    evil = Suggestion(None, found.rule, None, found.verdict, attack, {})
    page = Reader(range_test_table(curves, evil, attack).to_html())
    assert page.elements == {"table", "caption", "tbody", "tr", "td"}
    assert page.text.count(attack) == 2


def test_a_narrow_terminal_shows_the_numbers_whole() -> None:
    text = printed(table_of("ok"), width=50)
    assert f"{suggestion_of(CURVES['ok']).lr:.3g}" in text
    assert max(len(line) for line in text.splitlines()) <= 50


def test_the_description_says_the_lr_the_bracket_and_the_groups() -> None:
    found = suggestion_of(CURVES["ok"]).with_groups([1.0, 0.1])
    assert found.lr is not None
    assert found.bracket is not None
    assert found.bracket.high is not None
    assert describe_range_test(found).split("\n\n") == [
        f"**Learning rate {found.lr:.3g}**",
        f"Verdict `ok`: {found.reason}.",
        f"Param groups: {found.lr:.3g}, {found.lr / 10:.3g}; lr is that of param group 0; the others keep "
        "their ratios to it.",
        f"Bracket: {found.bracket.low:.3g} to {found.bracket.high:.3g}.",
    ]


def test_the_description_says_that_there_is_no_suggestion() -> None:
    found = replace(suggestion_of(CURVES["flat"]), reason="it *stood* still")
    assert describe_range_test(found) == "**No suggestion**\n\nVerdict `flat`: it \\*stood\\* still."
