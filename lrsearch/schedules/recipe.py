"""A torch scheduler as data: which class with which arguments, to be built or to be written down as code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler, MultiplicativeLR, SequentialLR

RISE_FROM = 0.01  # where a warmup starts: an lr of 0 would waste the first update


# What an argument's source may refer to, and how a script comes by it.
_PREAMBLE = {
    "peaks": '[group["lr"] for group in optimizer.param_groups]',
    "has_momentum": (
        'all(((group["betas"] or (0,))[0] if "betas" in optimizer.defaults else "momentum" in '
        'optimizer.defaults and group["momentum"] or 0) > 0 for group in optimizer.param_groups)'
    ),
}


@dataclass(frozen=True)
class Argument:
    """An argument that depends on the optimizer: its value there, and the expression to write instead.

    `value` takes the optimizer and its groups' peak lrs; `source` may use the names in `_PREAMBLE`.
    """

    source: str
    value: Callable[[Optimizer, Sequence[float]], Any]


@dataclass(frozen=True)
class Stage:
    """One torch scheduler that is in charge for `steps` updates."""

    steps: int
    scheduler: Callable[..., LRScheduler]
    arguments: Mapping[str, Any]

    def build(self, optimizer: Optimizer, peaks: Sequence[float]) -> LRScheduler:
        """The scheduler on `optimizer`, whose groups peak at `peaks`."""
        values = {
            name: argument.value(optimizer, peaks) if isinstance(argument, Argument) else argument
            for name, argument in self.arguments.items()
        }
        return self.scheduler(optimizer, **values)

    def code(self) -> str:
        """The Python expression that builds the scheduler on `optimizer`."""
        shown = [
            f"{name}={argument.source if isinstance(argument, Argument) else repr(argument)}"
            for name, argument in self.arguments.items()
        ]
        return f"lr_scheduler.{self.scheduler.__name__}({', '.join(['optimizer', *shown])})"


def scaled_peaks(ratio: float) -> Argument:
    """The argument that is each group's peak times `ratio`."""
    return Argument(
        "peaks" if ratio == 1 else f"[{ratio!r} * lr for lr in peaks]",
        lambda _optimizer, peaks: [ratio * lr for lr in peaks],
    )


# torch cycles momentum unless told: it would switch it on for SGD(0) and RMSprop, and raise for Adagrad.
CYCLE_MOMENTUM = Argument("has_momentum", lambda optimizer, _peaks: has_momentum(optimizer))


def has_momentum(optimizer: Optimizer) -> bool:
    """Whether every group already has a momentum, or a beta1, above 0: then a cycle may move it.

    Where torch does not find it in the optimizer's `defaults`, it cannot cycle it.
    """
    for group in optimizer.param_groups:
        if "betas" in optimizer.defaults:
            momentum = (group["betas"] or (0,))[0]
        elif "momentum" in optimizer.defaults:
            momentum = group["momentum"]
        else:
            return False
        if (momentum or 0) <= 0:
            return False
    return True


def rise(steps: int) -> NDArray[np.float64]:
    """A warmup's ratios to the lr that it leads to: RISE_FROM + (1 - RISE_FROM) * n / steps, n < steps."""
    return RISE_FROM + (1 - RISE_FROM) * np.arange(steps) / steps


def rising_stage(steps: int) -> Stage:
    """The scheduler that yields `rise(steps)`."""
    return Stage(steps, LinearLR, {"start_factor": RISE_FROM, "end_factor": 1.0, "total_iters": steps})


def lead_in(steps: int, stages: Sequence[Stage]) -> list[Stage]:
    """The stages after `steps` updates on which the lr rises to what they start at: times `rise(steps)`."""
    first = stages[0]
    if first.scheduler is MultiplicativeLR:
        # It goes on from the lr that it finds, the last one of the rise; its factor at 0 makes up for that.
        lift = 1 / float(rise(steps)[-1])
        first = replace(first, arguments={"lr_lambda": _with_lift(first.arguments["lr_lambda"], lift)})
    return [rising_stage(steps), first, *stages[1:]]


def _with_lift(factor: Argument, lift: float) -> Argument:
    def value(optimizer: Optimizer, peaks: Sequence[float]) -> Callable[[int], float]:
        factor_of = factor.value(optimizer, peaks)
        return lambda n: factor_of(n) if n > 0 else lift

    return Argument(f"lambda n: ({factor.source})(n) if n > 0 else {lift!r}", value)


def build_stages(stages: Sequence[Stage], optimizer: Optimizer) -> LRScheduler:
    """The scheduler that runs the stages one after the other; the optimizer's present lrs are the peaks."""
    peaks = take_peaks(optimizer)
    # The last stage is built first: it decides the lr that the stages before it lead up to (one-cycle and
    # cyclic begin below the peak).
    schedulers = [stage.build(optimizer, peaks) for stage in reversed(stages)][::-1]
    if len(schedulers) == 1:
        return schedulers[0]
    return SequentialLR(optimizer, schedulers, milestones=_milestones(stages))


def code_lines(stages: Sequence[Stage]) -> list[str]:
    """The lines that do what `build_stages` does, with torch alone."""
    if len(stages) == 1:
        lines = [f"scheduler = {stages[0].code()}"]
    else:
        names = [f"stage_{number}" for number in range(1, len(stages) + 1)]
        lines = [f"{name} = {stage.code()}" for name, stage in zip(names, stages, strict=True)][::-1]
        lines.append(
            f"scheduler = lr_scheduler.SequentialLR(optimizer, [{', '.join(names)}], {_milestones(stages)})"
        )
    needed = [
        f"{name} = {source}" for name, source in _PREAMBLE.items() if any(name in line for line in lines)
    ]
    return needed + lines


def take_peaks(optimizer: Optimizer) -> list[float]:
    """The groups' present lrs; an `initial_lr` that an earlier scheduler left, torch would use instead."""
    for group in optimizer.param_groups:
        group.pop("initial_lr", None)
    return [float(group["lr"]) for group in optimizer.param_groups]


def _milestones(stages: Sequence[Stage]) -> list[int]:
    done = 0
    milestones = []
    for stage in stages[:-1]:
        done += stage.steps
        milestones.append(done)
    return milestones
