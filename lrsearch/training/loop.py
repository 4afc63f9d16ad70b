"""The one training loop: every step of lrsearch, sweep or trial, is taken here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrsearch.errors import InputError, LrsearchError, first_line
from lrsearch.training.batches import Batches
from lrsearch.training.data import batch_size, describe, to_device
from lrsearch.training.optimizers import asks_for_closure, needs_closure, settings
from lrsearch.training.plain_state import (
    RandomStates,
    State,
    module_state,
    optimizer_state,
    put_module_state,
    put_optimizer_state,
)
from lrsearch.training.schedules import PlateauLR, Schedule
from lrsearch.training.task import LossFunction, StepFunction, forward

Precision = Literal["32", "16", "bf16"]

_DTYPES = {"16": torch.float16, "bf16": torch.bfloat16}
_SKIPS_IN_A_ROW = 20
"""Updates in a row that a GradScaler may skip: it halves its scale at each, from 2**16 to nothing in as
many.
"""
_BLOCK_ON_ACCELERATOR = 16
"""Losses read back at once from an accelerator, so that it is not stalled at every step."""

Observer = Callable[[int, float, float], str | None]
"""Called as ``observe(step, lr, loss)`` after each update; a text returned is the reason to stop."""
EpochEnd = Callable[[int], float | None]
"""Called as ``at_epoch_end(step)``; what it returns is the objective, for a schedule that reads it."""


class NotFiniteError(InputError):
    """The very first loss is not finite: in a sweep a wrong input, in a trial a divergence."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended: updates recorded, and which step stopped it and why (None: it reached its
    end).
    """

    steps: int
    stopped_at: int | None = None
    reason: str | None = None


@dataclass
class Training:
    """A model with all that one update of it needs."""

    model: nn.Module
    optimizer: Optimizer
    train_loader: Iterable[Any]
    loss: LossFunction | None
    step: StepFunction | None = None
    accumulate: int = 1
    clip: float | None = None
    precision: Precision = "32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type) if self.precision == "16" else None
        self.takes_closure = needs_closure(self.optimizer)
        self._checked = self._updated = self._stepped = self._closure_is_second = False
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.takes_closure and self.scaler is not None:
            raise self._no_scaler()

    def facts(self) -> dict[str, Any]:
        """What is trained, as plain JSON: the params that every run shows."""
        return {
            "model": type(self.model).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "optimizer": type(self.optimizer).__name__,
            **settings(self.optimizer),
            "batch_size": batch_size(self.train_loader),
            "device": str(self.device),
        }

    def state(self) -> State:
        """All that the next update depends on but the batch and the random states, as plain data."""
        return {
            "model": module_state(self.model),
            "loss": module_state(self.loss) if isinstance(self.loss, nn.Module) else None,
            "optimizer": optimizer_state(self.optimizer),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }

    def put_back(self, state: Mapping[str, Any]) -> None:
        """Put back a `state` that was taken after an update; ValueError where the parts are others."""
        put_module_state(self.model, state["model"], self.device)
        if isinstance(self.loss, nn.Module):
            put_module_state(self.loss, state["loss"], self.device)
        put_optimizer_state(self.optimizer, state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self._checked = self._updated = True

    def batch_loss(self, batch: Any) -> Tensor:
        """The loss of one batch, as the user's step or loss function computes it."""
        if self.device.type != "cpu":
            batch = to_device(batch, self.device)
        if self.precision == "32":
            return forward(self.model, self.loss, self.step, batch).loss
        with torch.autocast(self.device.type, dtype=_DTYPES[self.precision]):
            return forward(self.model, self.loss, self.step, batch).loss

    def update(self, batches: Iterator[Any]) -> Tensor:
        """Takes one step of the optimizer; returns its loss, still on the device.

        With `accumulate` > 1 the loss is the mean over that many batches. An update that the GradScaler skips
        is no step: it is tried again on the next batches. Raises InputError where the very first batch does
        not fit.
        """
        for _ in range(_SKIPS_IN_A_ROW):
            drawn = list(itertools.islice(batches, self.accumulate))
            if self.takes_closure:
                loss, done = self._closure_step(drawn), True
            else:
                loss = self._backward(drawn)
                done = self._step() if self._stepped else self._first_step(drawn)
            if done:
                self._updated = self._stepped = True
                return loss
        if not self._updated:
            raise InputError(
                "precision",
                self.precision,
                "the gradient of the first batches is not finite at any scale",
                "use precision='bf16' or '32'",
            )
        return torch.full((), float("inf"), device=self.device)

    def _backward(self, drawn: list[Any]) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for batch in drawn:
            loss = self.batch_loss(batch) if self._checked else self._first_loss(batch)
            if not isinstance(loss, Tensor):
                raise _no_tensor(loss)
            if self.accumulate > 1:
                loss = loss / self.accumulate
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        self._checked = True
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        return loss if loss.ndim == 0 else loss.reshape(())

    def _step(self) -> bool:
        self._clip()
        if self.scaler is None:
            self.optimizer.step()
            return True
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= scale  # it halves its scale where it found an overflow and skipped

    def _first_step(self, drawn: list[Any]) -> bool:
        """A step that shows whether the optimizer needs the closure which its `step` calls optional."""
        before = [p._version for p in self._trained]
        try:
            return self._step()
        except Exception as error:
            if not asks_for_closure(error):
                raise
            if self.scaler is not None:
                raise self._no_scaler() from error
            if before != [p._version for p in self._trained]:
                raise InputError(
                    "optimizer",
                    type(self.optimizer).__name__,
                    f"its step() had changed the weights when it missed its closure ({first_line(error)})",
                    "make the closure an argument without a default, or ask for it first",
                ) from error
        self.takes_closure = self._closure_is_second = True
        self.optimizer.step(self._closure(drawn, []))
        return True

    def _closure_step(self, drawn: list[Any]) -> Tensor:
        losses: list[Tensor] = []
        if self._closure_is_second:  # SAM finds its first gradients there, and calls for the second ones
            losses.append(self._backward(drawn))
            self._clip()
        self.optimizer.step(self._closure(drawn, losses))
        return losses[0]

    def _closure(self, drawn: list[Any], losses: list[Tensor]) -> Callable[[], float]:
        """Takes the loss of the batches and its gradients again; each loss goes to `losses`."""

        def closure() -> float:
            with torch.enable_grad():
                losses.append(self._backward(drawn))
            self._clip()
            return losses[-1].item()

        return closure

    def _no_scaler(self) -> InputError:
        return InputError(
            "precision",
            self.precision,
            f"no GradScaler follows {type(self.optimizer).__name__}, which takes the loss several times",
            "use precision='32' or 'bf16'",
        )

    def _clip(self) -> None:
        if self.clip is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._trained, self.clip)

    def _first_loss(self, batch: Any) -> Tensor:
        """The first batch's loss, with the checks that tell a wrong input from a training that fails
        later.
        """
        shapes = describe(batch)
        try:
            loss = self.batch_loss(batch)
        except (LrsearchError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            if self.loss is None and self.step is None:
                raise _no_loss(f"and the model makes none of its first batch {shapes} ({reason})") from error
            raise InputError(
                "train_loader",
                shapes,
                f"the model or the loss cannot take its first batch ({reason})",
                "compare these shapes with what the model expects",
            ) from error
        if not isinstance(loss, Tensor):
            raise _no_tensor(loss)
        if loss.numel() != 1:
            if self.loss is None and self.step is None:
                raise _no_loss(f"and the model returned {describe(loss)}")
            raise InputError("loss", describe(loss), "is not a scalar", "reduce it, e.g. with .mean()")
        if not loss.requires_grad:
            raise InputError(
                "loss",
                loss.item(),
                "has no gradient",
                "compute it from the model's outputs, without torch.no_grad(), .item() or .detach()",
            )
        if loss.is_complex():
            raise InputError("loss", describe(loss), "is not real", "return a real number, e.g. with .abs()")
        if not torch.isfinite(loss):
            raise NotFiniteError(
                "loss",
                loss.item(),
                "is not finite before the first update",
                "look for NaN or infinity in the data, the targets and the initial weights",
            )
        return loss


@dataclass(frozen=True)
class Progress:
    """How far a training has come: all that goes on from step to step, but for the random states."""

    training: Training
    scheduler: LRScheduler
    batches: Batches

    def state(self) -> State:
        """As plain data; only where `batches.at_place`."""
        return {
            "training": self.training.state(),
            "scheduler": self.scheduler.state_dict(),
            "batches": self.batches.place(),
        }

    def put_back(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`, once the batches have `skip`ped those that were taken.

        Raises ValueError where the training is made of other parts.
        """
        self.training.put_back(state["training"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.batches.put_back(state["batches"])


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
    observe: Observer,
    *,
    steps_per_epoch: int | None = None,
    at_epoch_end: EpochEnd | None = None,
    checkpoints: Checkpointing | None = None,
) -> Outcome:
    """Trains for `steps` updates under `schedule`, observed step by step.

    Losses stay on an accelerator and are read back in blocks; on a CPU each is read at once. The first loss
    that is not finite ends the training, and is not observed. After every `steps_per_epoch` updates, and
    after the last, all losses are observed and `at_epoch_end` is called; a plateau is told what it returns.
    With `checkpoints` it begins where an earlier training was kept, as if that had never stopped.
    Raises InputError where the first batch shows that loss, loader or model do not fit.
    """
    scheduler = schedule.build(training.optimizer, steps, steps_per_epoch)
    random_states = None if checkpoints is None else checkpoints.random_states
    batches = Batches(training.train_loader, steps * training.accumulate, random_states)
    progress = Progress(training, scheduler, batches)
    done = 0 if checkpoints is None else checkpoints.resume(progress)
    block = 1 if training.device.type == "cpu" else _BLOCK_ON_ACCELERATOR
    pauses = _epoch_ends(steps, steps_per_epoch) if at_epoch_end else frozenset({steps})
    group = training.optimizer.param_groups[0]
    lrs: list[float] = []
    losses: list[Tensor] = []
    for step in range(done + 1, steps + 1):
        lrs.append(float(group["lr"]))
        losses.append(training.update(batches))
        scheduler.step()
        wait = len(losses) < block and step not in pauses
        if wait and (checkpoints is None or not checkpoints.wants(batches)):
            continue
        values = [losses[0].item()] if len(losses) == 1 else torch.stack(losses).tolist()
        first = step - len(values) + 1
        for k, lr, value in zip(range(first, step + 1), lrs, values, strict=True):
            if not math.isfinite(value):
                return Outcome(k - 1, stopped_at=k, reason="not_finite")
            reason = observe(k, lr, value)
            if reason is not None:
                return Outcome(k, stopped_at=k, reason=reason)
        lrs.clear()
        losses.clear()
        if at_epoch_end is not None and step in pauses:
            objective = at_epoch_end(step)
            if objective is not None and isinstance(scheduler, PlateauLR):
                scheduler.report(objective)
        # Only now: to know its place the loader may have to draw, and validation comes before the next batch.
        if checkpoints is not None and step < steps and checkpoints.wants(batches):
            checkpoints.keep(step, progress)
    return Outcome(steps)


def _epoch_ends(steps: int, steps_per_epoch: int | None) -> frozenset[int]:
    """The updates after which an epoch ends, the last one among them."""
    return frozenset({steps, *range(steps_per_epoch or steps, steps, steps_per_epoch or steps)})


def _no_tensor(loss: object) -> InputError:
    return InputError("loss", loss, f"returned a {type(loss).__name__}", "return a scalar tensor")


def _no_loss(problem: str) -> InputError:
    mend = "hand over loss(outputs, targets), or step(model, batch)"
    return InputError("loss", None, f"is missing, {problem}", mend)
