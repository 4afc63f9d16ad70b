"""Tensors written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def write_tensors(values: Any, path: Path) -> None:
    """Write `values` as torch does, through Python's own file.

    A full disk then raises an OSError that says so, where torch's own writer tells of a wrong position.
    """
    with path.open("wb") as file:
        try:
            torch.save(values, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch ends its archive all the same, and fails again
                raise error.__context__ from None
            raise
