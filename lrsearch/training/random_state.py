"""Random generators and the flags of determinism: seeded, and put back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from lrsearch.training.loaders import (
    GENERATORS,
    Generator,
    generator_state,
    loader_parts,
    preserve_epochs,
    put_generator_state,
)

Restore = Callable[[], object]


@contextmanager
def preserve_random_state(loaders: Iterable[object] = ()) -> Iterator[None]:
    """Put random states, deterministic flags and the loaders' own generators back on leaving.

    Random states: Python's `random`, NumPy's global one, torch's on the CPU, on MPS and on every CUDA device
    (one that starts inside the block is seeded on leaving as torch would have seeded it). Flags:
    deterministic algorithms, `cudnn.deterministic`, `cudnn.benchmark`. Of `loaders`: every torch, NumPy or
    Python generator held by a loader, its samplers or its data set, the attributes of loaders and samplers,
    and the epoch of everything that has `set_epoch`.
    """
    restores: list[Restore] = [*_global_random_states(), *_deterministic_flags()]
    for part in loader_parts(loaders):
        if isinstance(part, GENERATORS):
            restores.append(_rewinder(part))
        elif isinstance(part, (DataLoader, Sampler)):
            restores.append(partial(refill, vars(part), dict(vars(part))))
    try:
        with preserve_epochs(loaders):
            yield
    finally:
        for restore in restores:
            restore()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Torch computes in one thread, so that its results do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def repeats_itself(device: torch.device) -> bool:
    """Whether equal trainings give equal numbers: on a CPU, or under deterministic algorithms."""
    return device.type == "cpu" or torch.are_deterministic_algorithms_enabled()


def seed_everything(seed: int) -> None:
    """Seed `random`, NumPy's global generator and torch on all devices; to be used in `preserve_state`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global one is what users' data sets and transforms read
    torch.manual_seed(seed)


def _global_random_states() -> list[Restore]:
    restores: list[Restore] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),  # noqa: NPY002
        partial(torch.set_rng_state, torch.get_rng_state()),
    ]
    if torch.cuda.is_available():
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            restores.append(partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
        else:  # torch.manual_seed leaves a seed that CUDA takes when it starts: the block's must not stay
            restores.append(lambda: torch.cuda.manual_seed_all(torch.initial_seed()))
    if torch.backends.mps.is_available():
        restores.append(partial(torch.mps.set_rng_state, torch.mps.get_rng_state()))
    return restores


def _deterministic_flags() -> list[Restore]:
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()

    def algorithms() -> None:
        now = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        if now != (enabled, warn_only):  # the call imports torch's compiler, more than a second
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)

    return [
        algorithms,
        partial(setattr, torch.backends.cudnn, "deterministic", torch.backends.cudnn.deterministic),
        partial(setattr, torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark),
    ]


def _rewinder(generator: Generator) -> Restore:
    return partial(put_generator_state, generator, generator_state(generator))


def refill(container: Any, contents: Any) -> None:
    """Give a dict, list, deque or set its former contents, in their former order."""
    if isinstance(container, dict):
        # By id, because keys may be tensors; cleared only where it must be, because threads may read it.
        if list(map(id, container)) != list(map(id, contents)):
            container.clear()
        for key, value in contents.items():
            container[key] = value
        return
    container.clear()
    if isinstance(container, set):
        container.update(contents)
    else:
        container.extend(contents)
