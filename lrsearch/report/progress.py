"""A progress bar for the terminal, on stderr; elsewhere it tells only where a sweep stands still."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lrsearch.core.observer import Observer
from lrsearch.report.stall import StallWatch

_REFRESH_S = 0.1


class SweepProgress(Observer):
    """Shows the sweep's steps, lr and loss; used as a context manager.

    It draws in a terminal only, at most ten times a second, from the thread that trains: it costs the
    training nothing in between. Where the sweep stands still, it says since when, also in a log.
    """

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._seeds = 0
        self._drawn = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("lr {task.fields[lr]:.1e}  loss {task.fields[loss]:.4g}{task.fields[stall]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("range test", total=None, lr=0.0, loss=0.0, stall="")
        self._step, self._steps = 0, 0
        self._watch = StallWatch(self._tell_stall, redraws=not self._bar.disable)

    def sweep_begins(self, seed: int, steps: int, model_info: Mapping[str, Any]) -> None:  # noqa: ARG002
        """A seed's sweep begins: the bar starts again."""
        self._seeds += 1
        self._step, self._steps = 0, steps
        self._watch.heard()
        many = f" {self._seeds}/{self._repeats}" if self._repeats > 1 else ""
        self._bar.reset(self._task, total=steps, description=f"range test{many}", lr=0.0, loss=0.0, stall="")

    def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:  # noqa: ARG002
        """A step is done."""
        self._step = step
        self._watch.heard()
        now = time.monotonic()
        if now - self._drawn > _REFRESH_S:
            self._drawn = now
            self._bar.update(self._task, completed=step, lr=lr, loss=loss, stall="", refresh=True)

    def _tell_stall(self) -> None:
        if self._bar.disable:
            print(f"range test: step {self._step:,}/{self._steps:,}{self._watch.said}", file=sys.stderr)
        else:
            self._bar.update(self._task, completed=self._step, stall=self._watch.said, refresh=True)

    def __enter__(self) -> SweepProgress:
        self._bar.start()
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, error, trace)
        if not self._bar.disable:  # before rich 14.3 a bar that was never drawn ends with an empty line
            self._bar.stop()
