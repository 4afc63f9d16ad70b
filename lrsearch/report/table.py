"""Tables drawn for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

from lrsearch.core.table import Table

_STYLES = ("", "bold", "dim")
"""Of a table without a header: name, value, remark."""


def rich_table(table: Table) -> RichTable:
    """The table as rich draws it; markup in its cells is text, and numbers are never broken."""
    drawn = RichTable(
        title=Text(table.title) if table.title else None,
        caption=Text(table.note) if table.note else None,
        box=SIMPLE_HEAD,
        show_header=bool(table.columns),
        title_justify="left",
        caption_justify="left",
        collapse_padding=True,
        pad_edge=False,
    )
    for k, column in enumerate(table.columns):
        is_number = k in table.numbers
        side: JustifyMethod = "right" if is_number else "left"
        drawn.add_column(Text(column), justify=side, no_wrap=is_number, overflow="fold")
    if not table.columns:
        width = max(map(len, table.rows), default=0)
        for style in _STYLES[:width]:
            drawn.add_column(style=style, no_wrap=style != "dim", overflow="fold")
    for rows in (table.rows, table.foot):
        for row in rows:
            drawn.add_row(*map(Text, row))
        drawn.add_section()
    return drawn


def print_table(table: Table) -> None:
    """Draw the table on stdout."""
    Console().print(rich_table(table))
