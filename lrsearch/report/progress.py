"""A progress bar for the terminal, on stderr; silent where nobody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_REFRESH_S = 0.1


class SweepProgress:
    """Shows the sweep's steps, lr and loss; used as a context manager.

    It draws in a terminal only, at most ten times a second, from the thread that trains: it costs the
    training nothing in between.
    """

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._seeds = 0
        self._drawn = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("lr {task.fields[lr]:.1e}  loss {task.fields[loss]:.4g}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("range test", total=None, lr=0.0, loss=0.0)

    def begin(self, seed: int, steps: int, facts: Mapping[str, Any]) -> None:  # noqa: ARG002
        """A seed's sweep begins: the bar starts again."""
        self._seeds += 1
        many = f" {self._seeds}/{self._repeats}" if self._repeats > 1 else ""
        self._bar.reset(self._task, total=steps, description=f"range test{many}", lr=0.0, loss=0.0)

    def point(self, seed: int, step: int, lr: float, loss: float) -> None:  # noqa: ARG002
        """A step is done."""
        now = time.monotonic()
        if now - self._drawn > _REFRESH_S:
            self._drawn = now
            self._bar.update(self._task, completed=step, lr=lr, loss=loss, refresh=True)

    def __enter__(self) -> SweepProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
