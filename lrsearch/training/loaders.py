"""What a loader is made of: its samplers, data sets and generators, their seeds and their epochs."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_PARTS = (*GENERATORS, DataLoader, Sampler, Dataset)
_PART_NAMES = {"dataset", "sampler", "batch_sampler", "loader", "dataloader"}


def loader_parts(loaders: Iterable[object]) -> list[object]:
    """The loaders and all that they hold of loaders, samplers, data sets and generators, each once."""
    parts: dict[int, object] = {}
    pending = list(loaders)
    while pending:
        part = pending.pop()
        if id(part) in parts:
            continue
        parts[id(part)] = part
        if isinstance(part, GENERATORS):
            continue
        for name, value in getattr(part, "__dict__", {}).items():
            if isinstance(value, _PARTS) or name in _PART_NAMES:
                pending.append(value)
            elif name == "datasets" and isinstance(value, (list, tuple, dict)):  # torch's ConcatDataset …
                pending += value.values() if isinstance(value, dict) else value
    return list(parts.values())


def generator_state(generator: Generator) -> Any:
    """The state of a generator, whatever its kind."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.getstate()


def put_generator_state(generator: Generator, state: Any) -> None:
    """Put a generator into the state that `generator_state` gave."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def seed_loaders(loaders: Iterable[object], seed: int) -> None:
    """Seed every generator that the loaders, their samplers and their data sets hold, each with `seed`."""
    for part in loader_parts(loaders):
        if isinstance(part, torch.Generator):
            part.manual_seed(seed)
        elif isinstance(part, np.random.Generator):
            part.bit_generator.state = type(part.bit_generator)(seed % 2**32).state
        elif isinstance(part, np.random.RandomState):
            part.seed(seed % 2**32)
        elif isinstance(part, random.Random):
            part.seed(seed)


def epoch_setters(loaders: Iterable[object]) -> list[Callable[[int], object]]:
    """`set_epoch` of every loader, sampler and data set that has it, and takes the epoch alone."""
    setters = (getattr(part, "set_epoch", None) for part in loader_parts(loaders))
    return [setter for setter in setters if callable(setter) and _takes_one(setter)]


def _takes_one(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind(0)
    except TypeError:
        return False
    return True


def epoch_number(seed: int, passes: int) -> int:
    """The epoch that `set_epoch` is told after so many passes: another one for every seed and pass.

    Seed 0 counts 0, 1, 2, …; seeds closer than 2,000 share none of their first million, and none is above
    2**31, so that it may be added to a seed.
    """
    return (seed * 1_000_003 + passes) % (2**31 - 1)


@contextmanager
def preserve_epochs(loaders: Iterable[object]) -> Iterator[None]:
    """Put the epoch of loaders, samplers and data sets that have `set_epoch` back on leaving."""
    with ExitStack() as stack:
        for part in loader_parts(loaders):
            if hasattr(part, "__dict__") and callable(getattr(part, "set_epoch", None)):
                stack.enter_context(_preserve_numbers(vars(part)))
        yield


def is_one_shot(loader: object) -> bool:
    """Whether the loader is its own iterator (a generator, `zip`, `map`), which cannot be started again."""
    # Asked of iterators only: iter() of a real loader starts its workers and draws a random number.
    return isinstance(loader, Iterator) and iter(loader) is loader


@contextmanager
def _preserve_numbers(attributes: dict[str, Any]) -> Iterator[None]:
    """Put the numbers and texts among an object's attributes back, also those in a tensor of one element."""
    before = {name: value for name, value in attributes.items() if isinstance(value, _SCALARS)}
    tensors = [
        (value, value.clone())
        for value in attributes.values()
        if isinstance(value, torch.Tensor) and value.numel() == 1
    ]
    try:
        yield
    finally:
        for name, value in list(attributes.items()):
            if isinstance(value, _SCALARS) and name not in before:
                del attributes[name]
        attributes.update(before)
        for tensor, kept in tensors:
            tensor.copy_(kept)
