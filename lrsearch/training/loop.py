"""The one training loop: every step of lrsearch, sweep or trial, is taken here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from lrsearch.schedules import Schedule
from lrsearch.training.batches import Batches
from lrsearch.training.portable_state import RandomStates, State
from lrsearch.training.schedulers import PlateauLR, build
from lrsearch.training.untrained import BadBatch, DivergedError
from lrsearch.training.update import Training

_BLOCK_ON_ACCELERATOR = 16
"""Losses read back at once from an accelerator, so that it is not stalled at every step."""

Observe = Callable[[int, float, float], str | None]
"""Called as ``observe(step, lr, loss)`` after each update; a text returned is the reason to stop."""
EpochEnd = Callable[[int], "Validated"]
"""Called as ``at_epoch_end(step)``."""


@dataclass(frozen=True)
class Validated:
    """What a validation says: the objective, for a schedule that reads it, and why to stop, if so."""

    objective: float | None = None
    stop: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a training ended: updates recorded, and which step stopped it and why (None: it reached its
    end). Where it diverged by raising (``raised``), `error` is what it raised. `passed_over` are the bad
    batches.
    """

    steps: int
    stopped_at: int | None = None
    reason: str | None = None
    error: BaseException | None = None
    passed_over: tuple[BadBatch, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a training has come: all that goes on from step to step, but for the random states."""

    training: Training
    scheduler: LRScheduler
    batches: Batches

    def state_dict(self) -> State:
        """As plain data; only where `batches.at_place`."""
        return {
            "training": self.training.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "batches": self.batches.place(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`, once the batches have `skip`ped those that were taken.

        Raises ValueError where the training is made of other parts.
        """
        self.training.load_state_dict(state["training"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.batches.load_state_dict(state["batches"])


class Checkpointing(Protocol):
    """Keeps a training's progress, and finds it again."""

    random_states: RandomStates

    def resume(self, progress: Progress) -> int:
        """Put back what was kept; returns how many updates that is, 0 where there is nothing."""

    def wants(self, batches: Batches) -> bool:
        """Whether to keep the progress now, between two updates."""

    def keep(self, step: int, progress: Progress) -> None:
        """Keep the progress after `step` updates; raises what is to stop the training here."""


def fit(
    training: Training,
    schedule: Schedule,
    steps: int,
    observe: Observe,
    *,
    steps_per_epoch: int | None = None,
    at_epoch_end: EpochEnd | None = None,
    validate_every: int | None = None,
    checkpoints: Checkpointing | None = None,
) -> Outcome:
    """Trains for `steps` updates under `schedule`, observed step by step.

    Losses stay on an accelerator and are read back in blocks; on a CPU each is read at once. The first loss
    that is not finite ends the training, and is not observed, unless its batch is at fault. After every
    `steps_per_epoch` updates (or `validate_every`), and after the last, all losses are observed and
    `at_epoch_end` is called; a plateau is told the objective. With `checkpoints` it begins where an earlier
    training was kept, as if that had never stopped. Raises InputError where the first batch shows that loss,
    loader or model do not fit.
    """
    scheduler = build(schedule, training.optimizer, steps, steps_per_epoch)
    random_states = None if checkpoints is None else checkpoints.random_states
    batches = Batches(training.train_loader, steps * training.accumulate, random_states, training.seed)
    progress = Progress(training, scheduler, batches)
    done = 0 if checkpoints is None else checkpoints.resume(progress)
    block = 1 if training.device.type == "cpu" else _BLOCK_ON_ACCELERATOR
    pauses = _epoch_ends(steps, validate_every or steps_per_epoch) if at_epoch_end else frozenset({steps})
    group = training.optimizer.param_groups[0]
    lrs: list[float] = []
    losses: list[Tensor] = []

    def end(steps: int, reason: str | None, stopped_at: int, error: BaseException | None = None) -> Outcome:
        return Outcome(steps, stopped_at, reason, error, tuple(training.passed_over))

    for step in range(done + 1, steps + 1):
        lrs.append(float(group["lr"]))
        raised = None
        try:
            losses.append(training.update(batches, step))
        except DivergedError as error:
            raised = error.__cause__
        else:
            scheduler.step()
        at_once = step <= training.guarded or step in pauses or raised is not None
        wait = len(losses) < block and not at_once
        if wait and (checkpoints is None or not checkpoints.wants(batches)):
            continue
        first = step - len(lrs) + 1
        for k, lr, value in zip(range(first, step + 1), lrs, training.read(losses), strict=False):
            if value is None:
                continue
            if not math.isfinite(value):
                return end(k - 1, "not_finite", k)
            if k <= training.guarded and training.has_blown_up(value):
                return end(k - 1, "rose", k)
            reason = observe(k, lr, value)
            if reason is not None:
                return end(k, reason, k)
        if raised is not None:
            return end(step - 1, "raised", step, raised)
        lrs, losses = [], []
        if at_epoch_end is not None and step in pauses:
            found = at_epoch_end(step)
            if found.stop is not None:
                return end(step, found.stop, step)
            if found.objective is not None and isinstance(scheduler, PlateauLR):
                scheduler.report(found.objective)
        # Only now: to know its place the loader may have to draw, and validation comes before the next batch.
        if checkpoints is not None and step < steps and checkpoints.wants(batches):
            checkpoints.keep(step, progress)
    return Outcome(steps, passed_over=tuple(training.passed_over))


def _epoch_ends(steps: int, steps_per_epoch: int | None) -> frozenset[int]:
    """The updates after which an epoch ends, the last one among them."""
    return frozenset({steps, *range(steps_per_epoch or steps, steps, steps_per_epoch or steps)})
