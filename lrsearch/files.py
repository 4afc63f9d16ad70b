"""How files are written: whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import Any

from lrsearch.errors import RecordError

UNFINISHED = ".unfinished"
"""How the name of a file ends that a killed process left half written."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what cannot be written in here into a RecordError that names `path`."""
    try:
        yield
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def whole_file(path: Path, name: Callable[[BufferedRandom], str] | None = None) -> Iterator[BufferedRandom]:
    """Write a file so that a reader sees the old content or the new and never half of it.

    So it is after a power cut too: the disk has the content before the file takes its place. Where the name
    depends on the content, `name` gives it, from the file as it was written. OSError where it cannot be
    written; nothing of it is left then.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with unfinished.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            place = path if name is None else path.with_name(name(file))
        unfinished.replace(place)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a `whole_file`; RecordError where it cannot be written."""
    with writing(path), whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole; NaN and infinity are refused with ValueError."""
    write_whole(path, json.dumps(value, allow_nan=False, indent=1) + "\n")
