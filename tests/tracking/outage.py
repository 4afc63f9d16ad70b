"""How long a training may stand still for its record, and how long anybody waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

TIMEOUT = 90.0


@dataclass
class Stopwatch:
    """How long the training stood still for the sake of its record."""

    seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - begin
