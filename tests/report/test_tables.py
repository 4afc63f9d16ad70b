"""The closing table, in the terminal and in a notebook."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import pytest
from rich.console import Console

from lrsearch.core.suggest import Suggestion
from lrsearch.report.tables import range_test_html, range_test_table
from tests.report.test_plots import CURVES, answer


def printed(name: str, task: str = "digits", width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(range_test_table(CURVES[name], answer(CURVES[name]), task))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Reader(HTMLParser):
    """The text of a page, its elements, and those left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.elements, self.open = "", set[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


@pytest.mark.parametrize("name", CURVES)
def test_every_verdict_prints(name: str) -> None:
    text = printed(name)
    found = answer(CURVES[name])
    assert found.verdict in text
    assert "digits" in text
    for number in (found.lr, found.bracket and found.bracket.low, *found.rules.values()):
        assert number is None or f"{number:.3g}" in text


@pytest.mark.parametrize("name", CURVES)
def test_the_notebook_shows_the_same(name: str) -> None:
    page = Reader(range_test_html(CURVES[name], answer(CURVES[name]), "digits"))
    assert page.open == []
    words = set(printed(name, width=1000).split()) - {"─" * n for n in range(1, 1000)}
    assert [word for word in words if word not in page.text] == []


@pytest.mark.parametrize("name", CURVES)
def test_a_suggestion_shows_itself_in_a_notebook(name: str) -> None:
    found = answer(CURVES[name])
    page = Reader(found._repr_html_())
    assert page.open == []
    assert found.reason in page.text
    assert all(f"{lr:.3g}" in page.text for lr in found.rules.values())


def test_no_number_is_shown_where_there_is_none() -> None:
    text = printed("flat")
    row = next(line for line in text.splitlines() if "suggested lr" in line)
    assert not any(char.isdigit() for char in row)


def test_each_seed_has_a_row_that_says_how_it_ended() -> None:
    assert [line.split()[:2] for line in printed("ok, three seeds").splitlines() if " seed " in line] == [
        ["seed", "0"],
        ["seed", "1"],
        ["seed", "2"],
    ]
    assert "stopped at step 79: the loss was not finite" in printed("ok, NaN tail")


def test_what_comes_from_outside_is_escaped_in_html() -> None:
    attack = "<script>alert('&')</script>"
    curves = CURVES["flat"]
    found = answer(curves)
    evil = Suggestion(None, found.rule, None, found.verdict, attack, {})
    page = range_test_html(curves, evil, attack)
    assert "<script" not in page
    assert Reader(page).elements == {"table", "caption", "tbody", "tr", "td"}
    assert Reader(page).text.count(attack) == 2


def test_what_comes_from_outside_is_no_markup_in_the_terminal() -> None:
    assert "[red]net[/red] [/]" in printed("ok", task="[red]net[/red] [/]")


def test_a_narrow_terminal_shows_the_numbers_whole() -> None:
    text = printed("ok", width=50)
    assert f"{answer(CURVES['ok']).lr:.3g}" in text
    assert max(len(line) for line in text.splitlines()) <= 50
