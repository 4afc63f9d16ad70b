"""How far a study is, on stderr: a live view in a terminal, a line a stage elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lrsearch.core.answer import StageResult
from lrsearch.core.observer import Observer
from lrsearch.core.study_plan import STAGES, StageName, StudyPlan
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.report.stall import StallWatch
from lrsearch.report.study_tables import plan_table, stage_found
from lrsearch.report.tables import format_lr
from lrsearch.schedules import schedule_name

_REFRESH_S = 0.1
_TELLING_COST = 0.02
"""Run-equivalents that must have been trained before they tell how long the rest takes."""
_BAR_WIDTH = 30


class StudyProgress(Observer):
    """Shows a study as it goes on; a context manager that begins with the plan and its cost.

    In a terminal it shows stage, trial, best so far, what is spent of the budget and the time left, at most
    ten times a second, from the thread that trains. Elsewhere it prints a line when a stage has ended.

    Where a training stands still, it says since when.
    """

    def __init__(self, plan: StudyPlan, total_steps: int, steps_per_epoch: int | None = None) -> None:
        self._plan = plan
        self._total_steps = total_steps
        self._console = Console(stderr=True)
        self._intro = plan_table(plan, total_steps, steps_per_epoch)
        self._live: Live | None = None
        if sys.stderr.isatty():
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._due = math.inf  # when to draw next
        self._account = _Account(plan, total_steps)
        self._stage = ""
        self._running: _Running | None = None
        self._step = 0
        self._best: TrialResult | None = None
        self._watch = StallWatch(self._tell_stall, redraws=self._live is not None)

    def __enter__(self) -> StudyProgress:
        self._console.print(self._intro)
        if self._live is not None:
            self._live.start()
            self._due = 0.0
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, error, trace)
        if self._live is not None:
            self._live.stop()

    def stage_begins(self, stage: StageName) -> None:
        """A stage begins."""
        self._stage, self._running = stage, None
        self._watch.rest()
        self._draw_if_due()

    def sweep_begins(self, seed: int, steps: int, model_info: Mapping[str, Any]) -> None:  # noqa: ARG002
        """A seed's sweep begins."""
        if self._running is not None:  # another sweep, whose end nobody tells
            self._account.book_sweep(self._step)
        self._begin(_Running("", seed, steps))

    def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:  # noqa: ARG002
        """The sweep has done so many updates."""
        self.trial_step(step)

    def trial_begins(self, spec: TrialSpec, number: int) -> None:
        """A training begins."""
        what = f" {number + 1} · lr {format_lr(spec.lr)} {schedule_name(spec.schedule)}"
        self._begin(_Running(what, spec.seed, spec.steps))

    def _begin(self, running: _Running) -> None:
        self._account.start()
        self._running, self._step = running, 0
        self._watch.heard()
        self._draw_if_due()

    def trial_step(self, step: int) -> None:
        """The training that runs has done so many updates."""
        self._step = step
        self._watch.heard()
        self._draw_if_due()

    def trial_ends(self, result: TrialResult) -> None:
        """A training has ended, or was found in the record."""
        self._account.book(result, trained=self._running is not None)
        self._running, self._step = None, 0
        self._watch.rest()
        if self._is_best(result):
            self._best = result
        self._draw_if_due()

    def stage_ends(self, result: StageResult) -> None:
        """A stage has ended."""
        self._account.close_stage(result)
        self._running, self._step = None, 0
        self._watch.rest()
        if self._live is None:
            cost = f"{result.cost:.3g} run-equivalents, {self._account.spent():.3g} so far"
            print(f"{result.stage}: {stage_found(result)}; {cost}", file=sys.stderr, flush=True)
        self._draw_if_due()

    def _is_best(self, result: TrialResult) -> bool:
        """A longer training counts for more than a shorter one, whatever either scored."""
        loss = self._plan.objective.as_loss(result)
        if result.status != "complete" or result.spec.optimizer is not None or loss is None:
            return False
        if self._best is None or result.spec.steps > self._best.spec.steps:
            return True
        best = self._plan.objective.as_loss(self._best)
        return result.spec.steps == self._best.spec.steps and (best is None or loss < best)

    def _tell_stall(self) -> None:
        if self._live is not None:
            self._draw()
        else:
            print(self._now(), file=sys.stderr, flush=True)

    def _draw_if_due(self) -> None:
        if time.monotonic() >= self._due:
            self._draw()

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._view(), refresh=True)
            self._due = time.monotonic() + _REFRESH_S

    def _view(self) -> Group:
        running = self._step if self._running is not None else 0
        spent, budget = self._account.spent(running), self._plan.budget
        bar = Table.grid(padding=(0, 2))
        left = self._account.seconds_left(self._stage, running)
        bar.add_row(
            ProgressBar(total=budget, completed=min(spent, budget), width=_BAR_WIDTH),
            Text(f"{spent:.1f} of at most {budget:.3g} run-equivalents"),
            Text("" if left is None else f"at most {_duration(left)} left"),
        )
        now = Text(self._now(), no_wrap=True, overflow="ellipsis")
        return Group(now, bar)

    def _now(self) -> str:
        parts = [self._stage]
        if (running := self._running) is not None:  # asked once: the watch looks from a thread of its own
            parts[0] += running.what
            parts.append(f"seed {running.seed}, step {self._step:,}/{running.steps:,}{self._watch.said}")
        if self._best is not None:
            parts.append(f"best {self._score(self._best)}")
        return " · ".join(parts)

    def _score(self, result: TrialResult) -> str:
        objective = self._plan.objective
        value = result.metrics[objective.metric].read(objective.use, objective.towards)
        return f"{objective.metric} {value:.4g} at {format_lr(result.spec.lr)}"


@dataclass(frozen=True)
class _Running:
    """The sweep or the training that runs: how it is called after its stage, its seed and its length."""

    what: str
    seed: int
    steps: int


class _Account:
    """What a study has spent, how fast, and how long the rest may take."""

    def __init__(self, plan: StudyPlan, total_steps: int) -> None:
        self._plan = plan
        self._total_steps = total_steps
        self._closed = 0.0
        self._in_stage = 0.0
        self._trained = 0.0
        self._started: float | None = None
        self._seen: set[str] = set()

    def start(self) -> None:
        """A training begins; what was found in the record took no time."""
        if self._started is None:
            self._started = time.monotonic()

    def book_sweep(self, steps: int) -> None:
        """A sweep has ended."""
        self._in_stage += steps / self._total_steps
        self._trained += steps / self._total_steps

    def book(self, result: TrialResult, *, trained: bool) -> None:
        """A training has ended; the same again costs nothing."""
        if result.spec.key in self._seen:
            return
        self._seen.add(result.spec.key)
        share = result.steps_done / self._total_steps
        self._in_stage += share
        self._trained += share if trained else 0.0

    def close_stage(self, result: StageResult) -> None:
        """A stage has ended, and knows best what it cost."""
        if not result.trials and self._started is not None:
            self._trained += max(0.0, result.cost - self._in_stage)  # the last sweep, whose end nobody tells
        self._closed += result.cost
        self._in_stage = 0.0

    def spent(self, running_steps: int = 0) -> float:
        """Run-equivalents so far, with those of the training that runs."""
        return self._closed + self._in_stage + running_steps / self._total_steps

    def seconds_left(self, stage: str, running_steps: int) -> float | None:
        """At most so long, at the speed until now; None while that is unknown."""
        trained = self._trained + running_steps / self._total_steps
        if self._started is None or trained < _TELLING_COST:
            return None
        speed = trained / (time.monotonic() - self._started)
        later = self._plan.costs()[STAGES.index(stage) :]
        here = self._in_stage + running_steps / self._total_steps
        most = sum(cost.most for cost in later) - here
        return max(0.0, min(most, self._plan.budget - self.spent(running_steps))) / speed


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
