"""A table of plain text, with its HTML for notebooks and its Markdown for MLflow."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Row = tuple[str, ...]

_MARKUP = re.compile(r"([\\`*_\[\]#!~|])")


@dataclass(frozen=True)
class Table:
    """Rows of plain text under a title.

    Without `columns` it has no header: each row is a name, a value and perhaps a remark. `numbers` are the
    indices of the columns that are aligned at their right. The rows of `foot` sum up the others, and `note`
    stands below the table. `kinds` mark rows on a page, one a row (such as ``winner``, or empty).
    """

    rows: Sequence[Row]
    columns: Row = ()
    title: str = ""
    note: str = ""
    numbers: tuple[int, ...] = ()
    foot: Sequence[Row] = ()
    kinds: Sequence[str] = ()

    def to_html(self) -> str:
        """The table for a notebook; every cell is escaped."""
        title = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        head = f"<thead>{self._html_row(self.columns, 'th')}</thead>" if self.columns else ""
        body = "".join(self._html_row(row, "td") for row in (*self.rows, *self.foot))
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"<table>{title}{head}<tbody>{body}</tbody></table>{note}"

    def to_markdown(self) -> str:
        """The table for a description in MLflow; every cell is escaped."""
        width = max(map(len, (self.columns, *self.rows, *self.foot)))
        rule = ["--:" if k in self.numbers else "---" for k in range(width)]
        rows = [tuple(map(escape_markdown, row)) for row in (*self.rows, *self.foot)]
        head = tuple(map(escape_markdown, self.columns)) or ("",) * width
        table = "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
        return "\n\n".join(
            part for part in (escape_markdown(self.title), table, escape_markdown(self.note)) if part
        )

    def _html_row(self, row: Row, tag: str) -> str:
        sides = ("right" if k in self.numbers else "left" for k in range(len(row)))
        cells = (
            f"<{tag} style='text-align:{side}'>{html.escape(cell)}</{tag}>"
            for cell, side in zip(row, sides, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"


def html_list(lines: Iterable[str]) -> str:
    """Lines of plain text as a list for a notebook; every one is escaped."""
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"


def escape_markdown(text: str) -> str:
    """A text in a line that Markdown shows as it is, wherever it came from (a metric's name, an error)."""
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))
