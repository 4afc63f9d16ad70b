"""How far a sweep or a study is, on stderr: drawn in a terminal, told in lines elsewhere."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lrsearch.core import text
from lrsearch.core.answer import StageResult
from lrsearch.core.budget import Budget
from lrsearch.core.observer import Observer
from lrsearch.core.study_plan import STAGES, StageName, StudyPlan
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.report.study import plan_table
from lrsearch.report.table import rich_table
from lrsearch.schedules import schedule_name

_REFRESH_S = 0.1
_STALLED_S = 30.0
"""A training that has recorded no step for so long is reported."""
_WATCH_S = 1.0
"""How often that is checked."""
_TELLING_COST = 0.02
"""Run-equivalents that must have been trained before they tell how long the rest takes."""
_BAR_WIDTH = 30


class StallWatch:
    """Calls `tell` while a training stands still; a context manager.

    It does so from a thread of its own: a loader that hangs holds up the thread that trains.

    Where `redraws`, as in a terminal, it does so every second; elsewhere, as in a log, each time the silence
    is twice as long as any before.
    """

    def __init__(self, tell: Callable[[], None], *, redraws: bool) -> None:
        self._tell = tell
        self._redraws = redraws
        self._heard: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lrsearch-progress", daemon=True)

    def heard(self) -> None:
        """A training runs, and has just done something."""
        self._heard = time.monotonic()

    def rest(self) -> None:
        """No training runs."""
        self._heard = None

    @property
    def said(self) -> str:
        """Such as ``, no step for 40 s (since 09:30:00 UTC)``; empty where there is nothing to say."""
        silence = self._silence()
        if silence is None:
            return ""
        since = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() - silence))
        return f", no step for {text.duration(silence)} (since {since})"

    def __enter__(self) -> StallWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        longest = 0.0
        while not self._ended.wait(_WATCH_S):
            silence = self._silence()
            if silence is not None and (self._redraws or silence >= 2 * longest):
                longest = silence
                self._tell()

    def _silence(self) -> float | None:
        heard = self._heard
        seconds = 0.0 if heard is None else time.monotonic() - heard
        return seconds if heard is not None and seconds >= _STALLED_S else None


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


@dataclass(frozen=True)
class _Running:
    """The sweep or the training that runs: how it is called after its stage, its seed and its length."""

    what: str
    seed: int
    steps: int


class StudyProgress(Observer):
    """Shows a study as it runs; a context manager that begins with the plan and its cost.

    In a terminal it shows stage, trial, best so far, what is spent of the budget and the time left, at most
    ten times a second, from the thread that trains. Elsewhere it prints a line when a stage has ended.

    Where a training stands still, it says since when. What `trial_ends` tells may have been found in the
    record; of sweeps nobody tells the end.
    """

    def __init__(self, plan: StudyPlan, total_steps: int, steps_per_epoch: int | None = None) -> None:
        self._plan = plan
        self._total_steps = total_steps
        self._console = Console(stderr=True)
        self._intro = rich_table(plan_table(plan, total_steps, steps_per_epoch))
        self._live: Live | None = None
        if sys.stderr.isatty():
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._due = math.inf  # when to draw next
        self._budget = Budget(plan, total_steps)
        self._before_stage = 0.0  # spent, in run-equivalents
        self._trained = 0.0  # in this process: what was found in the record took no time
        self._started: float | None = None
        self._stage: StageName = "range-test"
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
            self._trained += self._budget.book_steps(self._step)
        self._begin(_Running("", seed, steps))

    def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:  # noqa: ARG002
        """The sweep has done so many updates."""
        self.trial_step(step)

    def trial_begins(self, spec: TrialSpec, number: int) -> None:
        """A training begins."""
        what = f" {number + 1} · lr {text.number(spec.lr)} {schedule_name(spec.schedule)}"
        self._begin(_Running(what, spec.seed, spec.steps))

    def _begin(self, running: _Running) -> None:
        if self._started is None:
            self._started = time.monotonic()
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
        cost = self._budget.book(result)
        self._trained += cost if self._running is not None else 0.0
        self._running, self._step = None, 0
        self._watch.rest()
        if self._is_best(result):
            self._best = result
        self._draw_if_due()

    def stage_ends(self, result: StageResult) -> None:
        """A stage has ended."""
        spent = self._before_stage + result.cost  # with the sweeps, of which not all was told
        if not result.trials and self._started is not None:
            self._trained += max(0.0, spent - self._budget.spent)
        self._budget.spent = self._before_stage = spent
        self._running, self._step = None, 0
        self._watch.rest()
        if self._live is None:
            found = text.stage_found(result.found)
            cost = f"{text.number(result.cost)} run-equivalents, {text.number(spent)} so far"
            print(f"{result.stage}: {found}; {cost}", file=sys.stderr, flush=True)
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
        running = self._step / self._total_steps if self._running is not None else 0.0
        spent, budget = self._budget.spent + running, self._plan.budget
        left = self._seconds_left(running)
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=budget, completed=min(spent, budget), width=_BAR_WIDTH),
            Text(f"{spent:.1f} of at most {text.number(budget)} run-equivalents"),
            Text("" if left is None else f"at most {text.duration(left)} left"),
        )
        now = Text(self._now(), no_wrap=True, overflow="ellipsis")
        return Group(now, bar)

    def _seconds_left(self, running: float) -> float | None:
        """At most so long, at the speed until now; None while that is unknown."""
        trained = self._trained + running
        if self._started is None or trained < _TELLING_COST:
            return None
        speed = trained / (time.monotonic() - self._started)
        spent = self._budget.spent + running
        later = self._plan.costs()[STAGES.index(self._stage) :]
        most = sum(cost.most for cost in later) - (spent - self._before_stage)
        return max(0.0, min(most, self._plan.budget - spent)) / speed

    def _now(self) -> str:
        parts: list[str] = [self._stage]
        if (running := self._running) is not None:  # asked once: the watch looks from a thread of its own
            parts[0] += running.what
            parts.append(f"seed {running.seed}, step {self._step:,}/{running.steps:,}{self._watch.said}")
        if self._best is not None:
            parts.append(f"best {self._score(self._best)}")
        return " · ".join(parts)

    def _score(self, result: TrialResult) -> str:
        objective = self._plan.objective
        value = result.metrics[objective.metric].read(objective.use, objective.towards)
        return f"{objective.metric} {text.amount(value)} at {text.number(result.spec.lr)}"
