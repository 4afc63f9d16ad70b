"""The one training loop: every step of lrsearch, sweep or trial, is taken here."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrsearch.errors import InputError, LrsearchError, first_line
from lrsearch.training.batches import Batches
from lrsearch.training.data import batch_size, describe, to_device
from lrsearch.training.plain_state import (
    RandomStates,
    State,
    module_state,
    optimizer_state,
    put_module_state,
    put_optimizer_state,
)
from lrsearch.training.schedules import PlateauLR, Schedule
from lrsearch.training.state import preserve_random_state
from lrsearch.training.task import LossFunction, StepFunction, forward
from lrsearch.training.untrained import (
    BadBatch,
    Buffers,
    DivergedError,
    Untrained,
    has_finite_weights,
    may_be_divergence,
    speaks_of_numbers,
)

Precision = Literal["32", "16", "bf16"]

_DTYPES = {"16": torch.float16, "bf16": torch.bfloat16}
_SKIPS_IN_A_ROW = 20
"""Batches in a row that may come to no update: a GradScaler halves its scale at each, from 2**16 to nothing
in as many.
"""
_BLOWN_UP = 10.0
_BLOCK_ON_ACCELERATOR = 16
"""Losses read back at once from an accelerator, so that it is not stalled at every step."""

Observer = Callable[[int, float, float], str | None]
"""Called as ``observe(step, lr, loss)`` after each update; a text returned is the reason to stop."""
EpochEnd = Callable[[int], "Validated"]
"""Called as ``at_epoch_end(step)``."""


@dataclass(frozen=True)
class Validated:
    """What a validation says: the objective, for a schedule that reads it, and why to stop, if so."""

    objective: float | None = None
    stop: str | None = None


class NotFiniteError(InputError):
    """No first loss is finite: in a sweep a wrong input, in a trial a divergence."""


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
    untrained: Untrained | None = None
    guarded: int = 0
    """The first steps, in which a loss is held against the untrained model's on the same batch."""
    passed_over: list[BadBatch] = field(default_factory=list)
    seed: int = 0

    def __post_init__(self) -> None:
        self._first_value = self._value = math.nan
        self._latest: list[Any] = []
        self._buffers = Buffers(self.model)
        self._in_flight: list[tuple[int, list[Any]]] = []
        self.scaler = torch.amp.GradScaler(self.device.type) if self.precision == "16" else None
        self.takes_closure = _needs_closure(self.optimizer)
        self._checked = self._updated = False
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.takes_closure and self.scaler is not None:
            raise InputError(
                "precision",
                self.precision,
                f"no GradScaler follows {type(self.optimizer).__name__}, which takes the loss several times",
                "use precision='32' or 'bf16'",
            )

    def facts(self) -> dict[str, Any]:
        """What is trained, as plain JSON: the params that every run shows."""
        group = self.optimizer.param_groups[0]
        names = ("weight_decay", "momentum", "betas")
        settings: dict[str, Any] = {name: group[name] for name in names if name in group}
        if group.get("decoupled_weight_decay") or isinstance(self.optimizer, torch.optim.AdamW):
            settings["decoupled_weight_decay"] = True
        return {
            "model": type(self.model).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "optimizer": type(self.optimizer).__name__,
            **{
                name: str(value) if isinstance(value, tuple) else float(value)
                for name, value in settings.items()
            },
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
        return self._loss_of(self.model, self.loss, batch)

    def update(self, batches: Batches, step: int) -> Tensor:
        """Takes one step of the optimizer, number `step`; returns its loss, still on the device.

        With `accumulate` > 1 the loss is the mean over that many batches. An update that the GradScaler skips
        is no step, and neither is one whose loss is not finite on the untrained model either: it is tried
        again on the next batches. Where that goes on, the loss is infinite. Raises InputError where the very
        first batches do not fit, and DivergedError where a later one raises that the untrained model takes.
        """
        bad = len(self.passed_over)
        for _ in range(_SKIPS_IN_A_ROW):
            drawn = list(itertools.islice(batches, self.accumulate))
            self._latest = drawn if step <= self.guarded else []
            self._buffers.keep()
            try:
                loss = self._take(drawn, BadBatch(step, batches.number))
            except Exception as error:
                if self._updated and self._has_failed(error) and not self._fails_untrained(drawn):
                    raise DivergedError from error
                raise
            if loss is not None:
                if not self._updated:
                    self._first_value = self._value
                    self._updated = True
                return loss
        if self._updated:  # no batch's doing: what the loss or the model keeps is spoiled
            del self.passed_over[bad:]
        elif self.passed_over:
            raise NotFiniteError(
                "loss",
                math.nan,
                f"is not finite before the first update, on {_SKIPS_IN_A_ROW} batches in a row",
                "look for NaN or infinity in the data, the targets and the initial weights",
            )
        else:
            raise InputError(
                "precision",
                self.precision,
                "the gradient of the first batches is not finite at any scale",
                "use precision='bf16' or '32'",
            )
        return torch.full((), float("inf"), device=self.device)

    def read(self, losses: list[Tensor]) -> list[float | None]:
        """The values of the losses since the last time; None for a batch that turns out to be bad.

        An accelerator is not stalled to look at each loss before its update, so that there a bad batch is
        found here. Raises InputError where it has spoiled the weights.
        """
        in_flight, self._in_flight = self._in_flight, []
        if not losses:
            return []
        values = [losses[0].item()] if len(losses) == 1 else torch.stack(losses).tolist()
        for place, (value, (step, drawn)) in enumerate(zip(values, in_flight, strict=False)):
            if not math.isfinite(value) and self._fails_untrained(drawn):
                if not has_finite_weights(self.model):
                    raise InputError(
                        "train_loader",
                        describe(drawn[0]),
                        f"the loss of the batch at step {step} is not finite on the untrained model either",
                        "look for NaN or infinity in the data and the targets",
                    )
                self.passed_over.append(BadBatch(step, 0))
                values[place] = None
        return values

    def has_blown_up(self, loss: float) -> bool:
        """Whether this loss, of the latest update, is many times the untrained model's: the weights are lost.

        One batch whose targets lie far out is no such thing.
        """
        if loss - self._first_value <= _BLOWN_UP * abs(self._first_value):
            return False
        began = self._untrained_loss(self._latest)
        return loss - began > _BLOWN_UP * abs(began)

    def _take(self, drawn: list[Any], place: BadBatch) -> Tensor | None:
        """One step on these batches; None where it comes to none."""
        if self.takes_closure:
            return self._closure_step(drawn, place)
        loss = self._backward(drawn)
        if self.device.type == "cpu" or not self._updated:
            self._value = loss.item()
            if not math.isfinite(self._value) and self._pass_over(drawn, place):
                return None
        else:
            self._in_flight.append((place.step, drawn))
        return loss if self._step() else None

    def _has_failed(self, error: Exception) -> bool:
        """Whether an error can come of the numbers: it says so, or the weights or the last loss do."""
        if not may_be_divergence(error):
            return False
        exploded = self._value - self._first_value > _BLOWN_UP * abs(self._first_value)
        return speaks_of_numbers(error) or exploded or not has_finite_weights(self.model)

    def _pass_over(self, drawn: list[Any], place: BadBatch) -> bool:
        """Whether it is the data's doing that a loss is not finite."""
        if self._updated and not self._fails_untrained(drawn):
            return False
        self.passed_over.append(place)
        self._buffers.put_back(self.untrained)
        return True

    def _fails_untrained(self, drawn: list[Any]) -> bool:
        """Whether the untrained model raises on these batches, or gives a loss that is not finite."""
        try:
            return self.untrained is not None and not math.isfinite(self._untrained_loss(drawn))
        except Exception:
            return True  # what it raises, it raised before: the caller has that

    def _untrained_loss(self, drawn: list[Any]) -> float:
        if self.untrained is None:
            return math.nan
        with preserve_random_state(), self.untrained() as model:
            loss = copy.deepcopy(self.loss) if isinstance(self.loss, nn.Module) else self.loss
            return sum(self._loss_of(model, loss, batch).item() for batch in drawn) / len(drawn)

    def _loss_of(self, model: nn.Module, loss: LossFunction | None, batch: Any) -> Tensor:
        if self.device.type != "cpu":
            batch = to_device(batch, self.device)
        if self.precision == "32":
            return forward(model, loss, self.step, batch).loss
        with torch.autocast(self.device.type, dtype=_DTYPES[self.precision]):
            return forward(model, loss, self.step, batch).loss

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

    def _closure_step(self, drawn: list[Any], place: BadBatch) -> Tensor | None:
        losses: list[Tensor] = []

        def closure() -> float:
            loss = self._backward(drawn)
            value = self._value = loss.item()
            if not losses and not math.isfinite(value) and self._pass_over(drawn, place):
                raise _PassedOverError  # before the optimizer has moved anything
            losses.append(loss)
            self._clip()
            return value

        try:
            self.optimizer.step(closure)
        except _PassedOverError:
            return None
        return losses[0]

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
        return loss


class _PassedOverError(Exception):
    """Ends an optimizer's step before it begins."""


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
    that is not finite ends the training, and is not observed, unless its batch is at fault. After every
    `steps_per_epoch` updates, and after the last, all losses are observed and `at_epoch_end` is called; a
    plateau is told the objective. With `checkpoints` it begins where an earlier training was kept, as if that
    had never stopped. Raises InputError where the first batch shows that loss, loader or model do not fit.
    """
    scheduler = schedule.build(training.optimizer, steps, steps_per_epoch)
    random_states = None if checkpoints is None else checkpoints.random_states
    batches = Batches(training.train_loader, steps * training.accumulate, random_states, training.seed)
    progress = Progress(training, scheduler, batches)
    done = 0 if checkpoints is None else checkpoints.resume(progress)
    block = 1 if training.device.type == "cpu" else _BLOCK_ON_ACCELERATOR
    pauses = _epoch_ends(steps, steps_per_epoch) if at_epoch_end else frozenset({steps})
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
        lrs.clear()
        losses.clear()
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


def _no_tensor(loss: object) -> InputError:
    return InputError("loss", loss, f"returned a {type(loss).__name__}", "return a scalar tensor")


def _no_loss(problem: str) -> InputError:
    mend = "hand over loss(outputs, targets), or step(model, batch)"
    return InputError("loss", None, f"is missing, {problem}", mend)


def _needs_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
