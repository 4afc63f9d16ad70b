"""What is read of a table in a terminal, and of a notebook's HTML."""

from __future__ import annotations

import io
from html.parser import HTMLParser

from rich.console import Console

from lrsearch.core.table import Table
from lrsearch.report.table import rich_table


def printed(table: Table, width: int = 120) -> str:
    """The table as a terminal shows it."""
    console = Console(file=io.StringIO(), width=width)
    console.print(rich_table(table))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(text: str) -> str:
    """The text with its line breaks and columns undone."""
    return " ".join(text.split())


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
