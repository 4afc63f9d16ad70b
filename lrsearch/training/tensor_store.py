"""Where the copies of a model's tensors are kept: in memory, or in a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lrsearch.errors import InputError


class MemoryKeeper:
    """Holds copies of tensors on their device, or in main memory."""

    def __init__(self, *, to_cpu: bool) -> None:
        self._to_cpu = to_cpu

    def keep(self, values: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Copy the values; return the function that hands them out."""
        copied = values.to("cpu", copy=True) if self._to_cpu else values.clone()
        return lambda: copied

    def finish(self) -> None:
        """Nothing is left to do."""


class DiskKeeper:
    """Holds copies of tensors in one file, which is mapped into memory and not read as a whole."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / "tensors.pt"
        self._values: list[torch.Tensor] = []

    def keep(self, values: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Note the values; return the function that hands them out."""
        index = len(self._values)
        self._values.append(values)
        return lambda: self._stored[index]

    def finish(self) -> None:
        """Write all that was noted, one tensor at a time."""
        try:
            with self._path.open("wb") as file:
                write_tensors(self._values, file)
        except OSError as error:
            problem = f"{self._path.parent} cannot hold the model ({error.strerror})"
            raise InputError("keep", "disk", problem, 'set TMPDIR to a larger disk, or use "cpu"') from error

    @cached_property
    def _stored(self) -> list[torch.Tensor]:
        stored: list[torch.Tensor] = torch.load(self._path, map_location="cpu", mmap=True, weights_only=True)
        return stored


def write_tensors(values: Any, file: BinaryIO) -> None:
    """Write `values` as torch does, to a file of Python's own.

    A full disk then raises an OSError that says so, where torch's own writer tells of a wrong position.
    """
    try:
        torch.save(values, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch ends its archive all the same, and fails again
            raise error.__context__ from None
        raise
