"""A table as a terminal shows it."""

from __future__ import annotations

from lrsearch.core.table import Table
from tests.report.shown import printed


def test_every_part_is_drawn_and_numbers_are_aligned_at_their_right() -> None:
    table = Table(
        [("a", "1"), ("b", "23")], ("name", "n"), "title", "note", numbers=(1,), foot=[("all", "24")]
    )
    lines = [line.rstrip() for line in printed(table).splitlines() if line.strip()]
    assert [lines[0].strip(), lines[-1].strip()] == ["title", "note"]
    ends = [len(line) for line in lines if line.split()[0] in ("name", "a", "b", "all")]
    assert len(ends) == 4
    assert len(set(ends)) == 1


def test_what_comes_from_outside_is_no_markup() -> None:
    attack = "[red]net[/red] [/]"
    shown = printed(Table([(attack, "")], (attack, "column"), attack, attack))
    assert shown.count(attack) == 4


def test_a_narrow_terminal_breaks_the_texts_and_no_number() -> None:
    text = printed(Table([("word " * 20, "12 to 34567")], ("text", "number"), numbers=(1,)), width=30)
    assert "12 to 34567" in text
    assert max(len(line) for line in text.splitlines()) <= 30
