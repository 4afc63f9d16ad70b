"""One update of a model: loss, gradients, the optimizer's step, and what becomes of a batch that fails."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrsearch.core.sweep_plan import Precision
from lrsearch.errors import InputError, LrsearchError, a_kind_of, first_line
from lrsearch.training.batches import Batches
from lrsearch.training.data import batch_size, describe, to_device
from lrsearch.training.optimizers import asks_for_closure, needs_closure, settings
from lrsearch.training.portable_state import (
    State,
    module_state,
    optimizer_state,
    put_module_state,
    put_optimizer_state,
)
from lrsearch.training.precision import autocast
from lrsearch.training.random_state import preserve_random_state
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

_SKIPS_IN_A_ROW = 20
"""Batches in a row that may come to no update: a GradScaler halves its scale at each, from 2**16 to nothing
in as many.
"""
_BLOWN_UP = 10.0
"""A loss that has grown by so many times its size has left the model behind."""


class NotFiniteError(InputError):
    """No first loss is finite: in a sweep a wrong input, in a trial a divergence."""


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
    averaged: nn.Module | None = None
    """The model with averaged weights, which follows the optimizer's steps by itself."""

    def __post_init__(self) -> None:
        self._first_value = self._value = math.nan
        self._latest: list[Any] = []
        self._at: tuple[int, Batches]  # the step under way, and where its batches come from
        self._buffers = Buffers(self.model)
        self._in_flight: list[tuple[int, list[Any]]] = []
        self.scaler = torch.amp.GradScaler(self.device.type) if self.precision == "16" else None
        self.takes_closure = needs_closure(self.optimizer)
        self._checked = self._updated = self._stepped = self._closure_is_second = False
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.takes_closure and self.scaler is not None:
            raise self._no_scaler()

    def model_info(self) -> dict[str, Any]:
        """What is trained, as plain JSON: the params that every run shows."""
        return {
            "model": type(self.model).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "optimizer": type(self.optimizer).__name__,
            **settings(self.optimizer),
            "batch_size": batch_size(self.train_loader),
            "device": str(self.device),
        }

    def state_dict(self) -> State:
        """All that the next update depends on but the batch and the random states, as plain data."""
        return {
            "model": module_state(self.model),
            "loss": module_state(self.loss) if isinstance(self.loss, nn.Module) else None,
            "optimizer": optimizer_state(self.optimizer),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "averaged": None if self.averaged is None else module_state(self.averaged),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back a `state` that was taken after an update; ValueError where the parts are others."""
        put_module_state(self.model, state["model"], self.device)
        if isinstance(self.loss, nn.Module):
            put_module_state(self.loss, state["loss"], self.device)
        put_optimizer_state(self.optimizer, state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            put_module_state(self.averaged, state["averaged"], self.device)
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
            self._at = step, batches
            if self.passed_over:
                self._buffers.keep()
            try:
                loss = self._take(drawn)
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

    def _take(self, drawn: list[Any]) -> Tensor | None:
        """One step on these batches; None where it comes to none."""
        if self.takes_closure:
            return self._closure_step(drawn)
        loss = self._backward(drawn)
        if self.device.type != "cpu" and self._updated:
            self._in_flight.append((self._at[0], drawn))
        elif self._is_lost(loss) and self._pass_over(drawn):
            return None
        done = self._step() if self._stepped else self._first_step(drawn, loss)
        self._stepped = self._stepped or done
        return loss if done else None

    def _is_lost(self, loss: Tensor) -> bool:
        self._value = loss.item()
        return not math.isfinite(self._value)

    def _has_failed(self, error: Exception) -> bool:
        """Whether an error can come of the numbers: it says so, or the weights or the last loss do."""
        if not may_be_divergence(error):
            return False
        exploded = self._value - self._first_value > _BLOWN_UP * abs(self._first_value)
        return speaks_of_numbers(error) or exploded or not has_finite_weights(self.model)

    def _pass_over(self, drawn: list[Any]) -> bool:
        """Whether it is the data's doing that a loss is not finite."""
        if self._updated and not self._fails_untrained(drawn):
            return False
        step, batches = self._at
        self.passed_over.append(BadBatch(step, batches.number))
        self._buffers.load_state_dict(self.untrained)
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
        with autocast(self.precision, self.device):
            return forward(model, loss, self.step, batch).loss

    def _backward(self, drawn: list[Any]) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        losses, checked = [], self._checked
        for batch in drawn:
            loss = self._loss_of(self.model, self.loss, batch) if checked else self._first_loss(batch)
            if not isinstance(loss, Tensor):
                raise _no_tensor(loss)
            if self.accumulate > 1:
                loss = loss / self.accumulate
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        self._checked = True
        loss = losses[0] if self.accumulate == 1 else torch.stack(losses).sum()
        return loss if loss.ndim == 0 else loss.reshape(())

    def _step(self) -> bool:
        if self.clip is not None:
            self._clip(self.clip)
        if self.scaler is None:
            self.optimizer.step()
            return True
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= scale  # it halves its scale where it found an overflow and skipped

    def _first_step(self, drawn: list[Any], loss: Tensor) -> bool:
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
        self.optimizer.step(self._closure(drawn, [loss]))
        return True

    def _closure_step(self, drawn: list[Any]) -> Tensor | None:
        losses: list[Tensor] = []
        if self._closure_is_second:  # SAM finds its first gradients there, and calls for the second ones
            losses.append(self._backward(drawn))
            if self._is_lost(losses[0]) and self._pass_over(drawn):
                return None
            if self.clip is not None:
                self._clip(self.clip)
        try:
            self.optimizer.step(self._closure(drawn, losses, may_pass_over=True))
        except _PassedOverError:
            return None
        return losses[0]

    def _closure(
        self, drawn: list[Any], losses: list[Tensor], *, may_pass_over: bool = False
    ) -> Callable[[], float]:
        """Takes the loss of the batches and its gradients again; each loss goes to `losses`.

        Where the first is the batches' fault it raises, before the optimizer has moved anything.
        """

        def closure() -> float:
            with torch.enable_grad():
                loss = self._backward(drawn)
            if self._is_lost(loss) and may_pass_over and not losses and self._pass_over(drawn):
                raise _PassedOverError
            losses.append(loss)
            if self.clip is not None:
                self._clip(self.clip)
            return self._value

        return closure

    def _no_scaler(self) -> InputError:
        return InputError(
            "precision",
            self.precision,
            f"no GradScaler follows {type(self.optimizer).__name__}, which takes the loss several times",
            "use precision='32' or 'bf16'",
        )

    def _clip(self, norm: float) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self._trained, norm)

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


def _no_tensor(loss: object) -> InputError:
    return InputError("loss", loss, f"returned {a_kind_of(loss)}", "return a scalar tensor")


def _no_loss(problem: str) -> InputError:
    mend = "hand over loss(outputs, targets), or step(model, batch)"
    return InputError("loss", None, f"is missing, {problem}", mend)
