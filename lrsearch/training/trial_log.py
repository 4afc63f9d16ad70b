"""What a trial has shown so far: summarised, watched for divergence, judged at its end."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from lrsearch.core.divergence import Divergence
from lrsearch.core.trial import Direction, MetricSummary, TrialResult, TrialSpec, TrialStatus, is_loss
from lrsearch.errors import is_out_of_memory

Record = Callable[[int, Mapping[str, float]], None]
"""Called as ``record(step, metrics)`` with everything that is to be kept."""
Monitor = Callable[[int, float], str | None]
"""Called as ``monitor(step, loss)`` with every training loss; a text returned is the reason to stop."""

_NOTHING: Mapping[str, float] = {}


class TrialLog:
    """What a trial has shown so far: summarised, watched for divergence, and handed on thinned."""

    def __init__(
        self,
        spec: TrialSpec,
        record: Record,
        monitor: Monitor,
        objective: str,
        direction: Direction = "minimize",
        divergence: Divergence = "auto",
    ) -> None:
        self.spec = spec
        self.steps_done = 0
        self.stopped: str | None = None
        """Why the trial has diverged."""
        self.bad_data: str | None = None
        """What is wrong with the training data."""
        self.objective: float | None = None
        """The objective as it was last measured, finite or not."""
        self.objective_name = objective
        self._direction = direction
        # A training loss that is the objective itself tells all: there is nothing to wait for.
        self._rise_stops = divergence == "loss_rose" or objective == "train/loss"
        self._rise_counts = divergence != "not_finite"
        self._rose = False
        self._waiting: int | None = None
        self._survived: list[int] = []
        self._error: str | None = None
        self._record = record
        self._monitor = monitor
        self._initial_loss: float | None = None
        self._metrics: dict[str, _Running] = {}
        self._untrained: dict[str, float] = {}  # what was measured before the first update
        self._started = time.monotonic()

    def add(
        self, step: int, values: Mapping[str, float], beside: Mapping[str, float] = _NOTHING
    ) -> str | None:
        """Takes what was measured after `step` updates; returns why the trial is to stop, if it is.

        Only finite values are kept. What stands `beside` them is recorded too, but not summarised.
        """
        self.steps_done = max(self.steps_done, step)
        kept = {}
        for name, value in values.items():
            if math.isfinite(value):
                kept[name] = value
                running = self._metrics.get(name)
                if step == 0:
                    self._untrained[name] = value
                elif running is None:
                    self._metrics[name] = _Running(value, self._untrained.get(name))
                else:
                    running.add(value)
        if self.objective_name in values:
            self.objective = values[self.objective_name]
        if kept and (self._is_due(step) or any(name.startswith("val/") for name in kept)):
            kept.update(beside)
            self._record(step, kept)
        loss = values.get("train/loss")
        if loss is not None:
            if self._initial_loss is None:
                self._initial_loss = kept.get("train/loss")
            self._watch(step, loss)
        if self.objective_name in values and self._rose and 2 * step >= self.spec.steps:
            self._stop_if_hopeless()
        return self.stopped

    def add_update(self, step: int, lr: float, loss: float) -> str | None:
        """Takes the finite loss and the lr of one update, just as `add` would: this is done at every step."""
        self.steps_done = step
        running = self._metrics.get("train/loss")
        if running is None:
            self._initial_loss = loss
            self._metrics["train/loss"] = _Running(loss)
        else:
            running.add(loss)
        if self.objective_name == "train/loss":
            self.objective = loss
        if self._is_due(step):
            self._record(step, {"train/loss": loss, "lr": lr})
        self._watch(step, loss)
        return self.stopped

    def stop(self, step: int, reason: str, error: BaseException | None = None) -> None:
        """The training ended at this step, diverged; `error` is what it raised."""
        self.steps_done = step
        self.stopped = reason
        self._error = None if error is None else "".join(traceback.format_exception(error))

    def _watch(self, step: int, loss: float) -> None:
        reason = self._monitor(step, loss)
        if reason == "not_finite" and self._waiting is None:
            self._waiting = step  # the next one tells whether the weights are lost, or it was the batch
            return
        if self._waiting is not None and reason != "not_finite":
            self._survived.append(self._waiting)
            self._waiting = None
        if reason is None:
            return
        if reason != "loss_rose" or self._rise_stops:
            self.stopped = reason
        elif self._rise_counts:
            self._rose = True

    def _stop_if_hopeless(self) -> None:
        """A training loss that rose counts where the objective is no better than the untrained model's.

        Where nothing tells the untrained model's, it does not.
        """
        first, now = self._untrained_objective(), self.objective
        if first is not None and now is not None:
            better = now < first if self._direction == "minimize" else now > first
            self.stopped = None if better else "loss_rose"

    def _untrained_objective(self) -> float | None:
        """The untrained model's objective, else the first training loss, else the first that was reported."""
        name = self.objective_name
        if name in self._untrained:
            return self._untrained[name]
        if is_loss(name) and self._direction == "minimize":
            return self._initial_loss
        running = self._metrics.get(name)
        return None if running is None or running.count == 1 else running.first

    def _summaries(self) -> dict[str, MetricSummary]:
        found = {name: running.summary() for name, running in self._metrics.items()}
        for name, value in self._untrained.items():
            if name not in found:
                found[name] = MetricSummary(value, value, value, value, untrained=value)
        return found

    def state_dict(self) -> dict[str, Any]:
        """What it has seen so far, as plain data."""
        return {
            "steps_done": self.steps_done,
            "objective": self.objective,
            "initial_loss": self._initial_loss,
            "metrics": {name: asdict(running.summary()) for name, running in self._metrics.items()},
            "untrained": dict(self._untrained),
            "rose": self._rose,
            "seconds": time.monotonic() - self._started,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self.steps_done = state["steps_done"]
        self.objective = state["objective"]
        self._initial_loss = state["initial_loss"]
        self._rose = state["rose"]
        self._untrained = dict(state["untrained"])
        self._metrics = {name: _Running.of(MetricSummary(**kept)) for name, kept in state["metrics"].items()}
        self._started = time.monotonic() - state["seconds"]

    def result(self, error: Exception | None = None, warnings: tuple[str, ...] = ()) -> TrialResult:
        """How the trial went, now that it has ended; `error` is what it raised.

        A trial that has diverged has done so whatever it raised afterwards.
        """
        status, cause, text = self._judge(error)
        return TrialResult(
            spec=self.spec,
            status=status,
            steps_done=self.steps_done,
            seconds=time.monotonic() - self._started,
            initial_loss=self._initial_loss,
            metrics=self._summaries(),
            cause=cause,
            error=text,
            warnings=warnings,
            bad_data=self.bad_data or self._say_survived(),
        )

    def _say_survived(self) -> str | None:
        if not self._survived:
            return None
        many = len(self._survived)
        what = "1 training loss was" if many == 1 else f"{many} training losses were"
        return (
            f"{what} not finite, the first at step {self._survived[0]}, and the training survived; look for "
            "NaN, infinity or targets that are all ignored"
        )

    def _judge(self, error: Exception | None) -> tuple[TrialStatus, str | None, str | None]:
        if self._waiting is not None and self.stopped is None:
            self.stopped = "not_finite"
        if self._rose and error is None and self.stopped is None:
            self._stop_if_hopeless()
        if self.stopped is not None:
            return "diverged", self.stopped, self._error
        if error is not None:
            return "failed", _kind(error), "".join(traceback.format_exception(error))
        if self.objective is not None and not math.isfinite(self.objective):
            return "diverged", "not_finite", None
        if self.objective is None:
            reported = ", ".join(self._metrics) or "nothing"
            text = f"{self.objective_name} is the objective and was never reported; reported: {reported}"
            return "failed", "no_objective", text
        return "complete", None, None

    def _is_due(self, step: int) -> bool:
        """Whether what the training measures at this step is recorded; validations always are."""
        return step % self.spec.log_every == 0 or step == self.spec.steps


class _Running:
    """A metric's summary as it grows: this is touched at every step, and a frozen one is slow to make."""

    __slots__ = ("_final", "_high", "_low", "_untrained", "count", "first")

    def __init__(self, value: float, untrained: float | None = None) -> None:
        self.first = value if untrained is None else untrained
        self.count = 1 if untrained is None else 2
        self._final = self._low = self._high = value
        self._untrained = untrained

    def add(self, value: float) -> None:
        """Takes one more value."""
        self._final = value
        self.count += 1
        if value < self._low:
            self._low = value
        elif value > self._high:
            self._high = value

    @classmethod
    def of(cls, summary: MetricSummary) -> _Running:
        """One that has come as far as `summary`."""
        running = cls(summary.first, summary.untrained)
        running._final, running._low, running._high = summary.final, summary.low, summary.high
        running.count = summary.count
        return running

    def summary(self) -> MetricSummary:
        """The metric so far."""
        return MetricSummary(self.first, self._final, self._low, self._high, self.count, self._untrained)


def _kind(error: Exception) -> str:
    """``out_of_memory``, else the error's type."""
    return "out_of_memory" if is_out_of_memory(error) else type(error).__name__
