"""A table as HTML and as Markdown."""

from __future__ import annotations

from lrsearch.core.table import Table, escape_markdown

TABLE = Table([("a|b", "1"), ("<i>", "2")], ("name", "n"), "title", "note", numbers=(1,), foot=[("all", "3")])


def test_html_has_every_part_escaped() -> None:
    assert TABLE.to_html() == (
        "<table><caption>title</caption>"
        "<thead><tr><th style='text-align:left'>name</th><th style='text-align:right'>n</th></tr></thead>"
        "<tbody><tr><td style='text-align:left'>a|b</td><td style='text-align:right'>1</td></tr>"
        "<tr><td style='text-align:left'>&lt;i&gt;</td><td style='text-align:right'>2</td></tr>"
        "<tr><td style='text-align:left'>all</td><td style='text-align:right'>3</td></tr></tbody></table>"
        "<p>note</p>"
    )


def test_markdown_has_every_part_escaped() -> None:
    assert TABLE.to_markdown().split("\n") == [
        *("title", "", "| name | n |", "| --- | --: |"),
        *("| a\\|b | 1 |", "| &lt;i&gt; | 2 |", "| all | 3 |", "", "note"),
    ]


def test_without_columns_the_header_is_left_out() -> None:
    table = Table([("lr", "0.1")])
    assert "<thead>" not in table.to_html()
    assert table.to_markdown() == "|  |  |\n| --- | --- |\n| lr | 0.1 |"


def test_a_text_in_markdown_is_shown_as_it_is() -> None:
    assert escape_markdown("*a*\n_b_ <c>") == r"\*a\* \_b\_ &lt;c&gt;"
