"""Results that take long to get, kept as CSV: a row is written when it is there, and never computed again."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BeforeValidator, TypeAdapter

R = TypeVar("R")

Floats = Annotated[tuple[float, ...], BeforeValidator(lambda cell: (cell or "").split())]
"""Numbers in one cell, with spaces between."""


class Table(Generic[R]):
    """A CSV file of records of one dataclass; None is an empty cell."""

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path = path
        self._kind = kind
        self._names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        self._rows = TypeAdapter(kind)

    def read(self) -> list[R]:
        """The rows there are."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return [
                self._rows.validate_python({name: cell or None for name, cell in line.items()})
                for line in csv.DictReader(file)
            ]

    def append(self, row: R) -> None:
        """Write one more row, at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.is_file()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(self._names)
            writer.writerow(_cells(row))

    def replace(self, rows: Iterable[R]) -> None:
        """Write the whole table anew; the old one stays until the new one is there."""
        unfinished = Table(self.path.with_suffix(".unfinished"), self._kind)
        unfinished.path.unlink(missing_ok=True)
        for row in rows:
            unfinished.append(row)
        unfinished.path.replace(self.path)


def _cells(row: Any) -> list[Any]:
    return [_cell(value) for value in asdict(row).values()]


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, tuple):
        return " ".join(map(repr, value))
    return "" if value is None else value
