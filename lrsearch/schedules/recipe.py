"""A torch scheduler as data: which class with which arguments, to be built or to be written down as code.

Classes are named as in `torch.optim.lr_scheduler`; `lrsearch.training.schedulers` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
class Function:
    """An argument that is a function of the update n, with the expression to write instead.

    `needs` are the lines of a script that the expression relies on.
    """

    source: str
    value: Callable[[int], float]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Peaks:
    """An argument that is each param group's peak lr times `ratio`."""

    ratio: float = 1.0

    @property
    def source(self) -> str:
        """The expression, of `peaks`."""
        return "peaks" if self.ratio == 1 else f"[{self.ratio!r} * lr for lr in peaks]"


@dataclass(frozen=True)
class HasMomentum:
    """An argument that says whether every param group has a momentum, or a beta1, above 0.

    torch cycles momentum unless told: it would switch it on for SGD(0) and RMSprop, and raise for Adagrad.
    """

    source = "has_momentum"


@dataclass(frozen=True)
class Stage:
    """One torch scheduler that is in charge for `steps` updates: its class's name, its arguments.

    An argument is a plain value, a `Function`, `Peaks`, `HasMomentum`, or a list of them.
    """

    steps: int
    scheduler: str
    arguments: Mapping[str, Any]

    def code(self) -> str:
        """The Python expression that builds the scheduler on `optimizer`."""
        shown = [f"{name}={_source(argument)}" for name, argument in self.arguments.items()]
        return f"lr_scheduler.{self.scheduler}({', '.join(['optimizer', *shown])})"

    def needs(self) -> Iterator[str]:
        """The lines of a script that `code` relies on."""
        for argument in self.arguments.values():
            for part in argument if isinstance(argument, list) else [argument]:
                if isinstance(part, Function):
                    yield from part.needs


def rise(steps: int) -> NDArray[np.float64]:
    """A warmup's ratios to the lr that it leads to: RISE_FROM + (1 - RISE_FROM) * n / steps, n < steps."""
    return RISE_FROM + (1 - RISE_FROM) * np.arange(steps) / steps


def rising_stage(steps: int) -> Stage:
    """The scheduler that yields `rise(steps)`."""
    return Stage(steps, "LinearLR", {"start_factor": RISE_FROM, "end_factor": 1.0, "total_iters": steps})


def lead_in(steps: int, stages: Sequence[Stage]) -> list[Stage]:
    """The stages after `steps` updates on which the lr rises to what they start at: times `rise(steps)`."""
    first = stages[0]
    if first.scheduler == "MultiplicativeLR":
        # It goes on from the lr that it finds, the last one of the rise; its factor at 0 makes up for that.
        lift = 1 / float(rise(steps)[-1])
        first = replace(first, arguments={"lr_lambda": _with_lift(first.arguments["lr_lambda"], lift)})
    return [rising_stage(steps), first, *stages[1:]]


def _with_lift(factor: Function, lift: float) -> Function:
    return replace(
        factor,
        source=f"lambda n: ({factor.source})(n) if n > 0 else {lift!r}",
        value=lambda n: factor.value(n) if n > 0 else lift,
    )


def code_lines(stages: Sequence[Stage]) -> list[str]:
    """The lines that build the stages one after the other as `scheduler`, with torch alone."""
    if len(stages) == 1:
        lines = [f"scheduler = {stages[0].code()}"]
    else:
        # The last stage is built first: it decides the lr that the stages before it lead up to.
        names = [f"stage_{number}" for number in range(1, len(stages) + 1)]
        lines = [f"{name} = {stage.code()}" for name, stage in zip(names, stages, strict=True)][::-1]
        lines.append(
            f"scheduler = lr_scheduler.SequentialLR(optimizer, [{', '.join(names)}], {milestones(stages)})"
        )
    needed = [
        f"{name} = {source}" for name, source in _PREAMBLE.items() if any(name in line for line in lines)
    ]
    relied_on = dict.fromkeys(line for stage in stages for line in stage.needs())
    return [*relied_on, *needed, *lines]


def milestones(stages: Sequence[Stage]) -> list[int]:
    """The updates at which a stage hands over to the next."""
    return list(accumulate(stage.steps for stage in stages[:-1]))


def _source(argument: Any) -> str:
    if isinstance(argument, Function | Peaks | HasMomentum):
        return argument.source
    if isinstance(argument, list):
        return f"[{', '.join(map(_source, argument))}]"
    return repr(argument)
