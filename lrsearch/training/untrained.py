"""The untrained model as a witness: what fails on it too is the data's doing, what does not, the lr's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from lrsearch.errors import LrsearchError, first_line, is_out_of_memory
from lrsearch.training.random_state import preserve_random_state, seed_everything
from lrsearch.training.snapshot import Kept, distinct_cells

Untrained = Callable[[], AbstractContextManager[nn.Module]]
"""A block in which the model is as it was before the first update."""

_NEVER_THE_LR = (TypeError, AttributeError, NameError, ImportError, LookupError, OSError, MemoryError)
"""Errors of the program or the machine."""
_NUMERIC = re.compile(
    r"\b(nans?|inf|infinit\w+|finite|diverge\w*|converge\w*|singular|overflow|positive.definite)\b",
    re.I,
)
"""Words by which an error shows that numbers have failed."""


class DivergedError(Exception):
    """What the batch raised (the cause) comes of a training that has diverged."""


@dataclass(frozen=True)
class BadBatch:
    """A batch whose loss is not finite on the untrained model either: batch `number` of a pass, at `step`."""

    step: int
    number: int


def rebuilt(build: Callable[[], nn.Module], seed: int) -> Untrained:
    """The model that `build` makes from a seed, made when it is first asked for."""
    made: list[nn.Module] = []

    @contextmanager
    def untrained() -> Iterator[nn.Module]:
        with preserve_random_state():
            if not made:
                seed_everything(seed)
                made.append(build().train())
            buffers = list(made[0].buffers())
            kept = [distinct_cells(buffer.detach()).clone() for buffer in buffers]
            try:
                yield made[0]
            finally:  # a batch may have moved its running statistics
                _overwrite(buffers, kept)

    return untrained


def rewound(model: nn.Module, kept: Kept) -> Untrained:
    """The model itself, its tensors as they were kept, and back again afterwards."""

    @contextmanager
    def untrained() -> Iterator[nn.Module]:
        tensors = [*model.parameters(), *model.buffers()]
        now = [distinct_cells(tensor.detach()).clone() for tensor in tensors]
        try:
            _overwrite(tensors, list(map(kept.before, tensors)))
            with preserve_random_state():
                yield model
        finally:
            _overwrite(tensors, now)

    return untrained


def say_passed_over(batches: Sequence[BadBatch]) -> str | None:
    """The bad batches in a sentence; None where there is none."""
    if not batches:
        return None
    first = batches[0]
    what = "1 batch was" if len(batches) == 1 else f"{len(batches)} batches were"
    return (
        f"{what} passed over, the first at step {first.step} (batch {first.number} of its epoch): the loss "
        "is not finite on the untrained model either; look for NaN, infinity or targets that are all ignored"
    )


def may_be_divergence(error: Exception) -> bool:
    """Whether an error can come of numbers that have grown too large at all."""
    return not (is_out_of_memory(error) or isinstance(error, (LrsearchError, *_NEVER_THE_LR)))


def speaks_of_numbers(error: Exception) -> bool:
    """Whether an error says itself that numbers have failed."""
    if not may_be_divergence(error):
        return False
    named = isinstance(error, (OverflowError, FloatingPointError, LinAlgError))
    return named or _NUMERIC.search(str(error)) is not None


def say_raised(error: BaseException) -> str:
    """An error that ended a training, in a line."""
    return f"it raised {type(error).__name__}: {first_line(error)}"


class Buffers:
    """What a bad batch does to a model's running statistics is undone.

    The first one finds nothing kept, so that spoiled buffers begin anew as the untrained model's. From then
    on they are copied before each update.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kept: dict[str, Tensor] | None = None

    def keep(self) -> None:
        """Note the buffers before an update, where a bad batch came before."""
        if self._kept is not None:
            self._kept = _copies(self._model)

    @torch.no_grad()
    def load_state_dict(self, untrained: Untrained | None) -> None:
        """The buffers as they were before the bad batch, or as they began."""
        if self._kept is None:
            self._kept = {}
            spoiled = {n for n, b in self._model.named_buffers() if b.is_floating_point() and not _finite(b)}
            if spoiled and untrained is not None:
                with untrained() as model:
                    self._kept = {name: kept for name, kept in _copies(model).items() if name in spoiled}
        for name, buffer in self._model.named_buffers():
            if name in self._kept:
                distinct_cells(buffer.detach()).copy_(self._kept[name])


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: distinct_cells(buffer.detach()).clone() for name, buffer in model.named_buffers()}


def has_finite_weights(model: nn.Module) -> bool:
    """Whether all that is trained of a model is finite."""
    return all(_finite(p) for p in model.parameters() if p.requires_grad)


def _finite(tensor: Tensor) -> bool:
    values = tensor.detach()
    return bool(torch.isfinite(values._values() if values.is_sparse else values).all())


@torch.no_grad()
def _overwrite(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        distinct_cells(tensor.detach()).copy_(value)
