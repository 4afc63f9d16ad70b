"""Batches: counted, moved to a device, split and described."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lrsearch.errors import InputError

_TARGET_NAMES = ("labels", "label", "targets", "target", "y")
_WITHOUT_LENGTH: WeakValueDictionary[int, Iterable[Any]] = WeakValueDictionary()
"""Loaders whose `len` has raised, by their id."""


def check_batches(loader: object) -> None:
    """Raises InputError for a training loader that is not iterable, or knows that it has no batch."""
    if not isinstance(loader, Iterable):
        raise InputError("train_loader", loader, "is not iterable", "hand over a DataLoader")
    if batch_count(loader) == 0:
        raise InputError("train_loader", loader, "has no batch", "hand over a loader with data")


def batch_count(loader: Iterable[Any]) -> int | None:
    """Batches an epoch, or None where the loader does not know (iterable data sets, generators)."""
    if id(loader) in _WITHOUT_LENGTH:
        return None
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:
        return None
    except Exception:
        # It may know once it is iterated, and then a study's later trials would have epochs, its first none.
        with suppress(TypeError):  # what cannot be referred to weakly is asked again
            _WITHOUT_LENGTH[id(loader)] = loader
        return None


def batch_size(loader: Iterable[Any]) -> int | None:
    """Rows a batch as the loader or its batch sampler states it, or None."""
    for owner in (loader, getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None)):
        size = getattr(owner, "batch_size", None)
        if isinstance(size, int):
            return size
    return None


def to_device(batch: Any, device: torch.device) -> Any:
    """The same batch on `device`.

    Whatever has `to` is moved by it (tensors, packed sequences, batches of graphs); tuples, lists, mappings
    and dataclasses are rebuilt of what they hold.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if callable(getattr(batch, "to", None)) and not isinstance(batch, type):
        moved = batch.to(device)
        return batch if moved is None else moved  # moved in place
    held = entries(batch)
    if held is None:
        return batch
    return rebuilt(batch, {key: to_device(value, device) for key, value in held.items()})


def entries(batch: Any) -> dict[Any, Any] | None:
    """What a mapping, dataclass, tuple or list holds, by key, field or place; None for anything else."""
    if isinstance(batch, Mapping):
        return dict(batch.items())
    if isinstance(batch, (tuple, list)):
        return dict(enumerate(batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in fields(batch)}
    return None


def rebuilt(batch: Any, held: Mapping[Any, Any]) -> Any:
    """A batch of the same class with these `entries`."""
    kind = type(batch)
    if isinstance(batch, Mapping):
        return held if kind is dict else _mapping_like(batch, held)
    if isinstance(batch, tuple):
        return kind._make(held.values()) if hasattr(kind, "_make") else kind(list(held.values()))
    copied = copy.copy(batch)
    if isinstance(batch, list):
        copied[:] = held.values()
    else:
        for name, value in held.items():
            object.__setattr__(copied, name, value)  # a frozen dataclass has no other way
    return copied


def _mapping_like(batch: Any, held: Mapping[Any, Any]) -> Any:
    try:
        if not isinstance(batch, (dict, UserDict)):
            return type(batch)(held)
        copied = copy.copy(batch)  # with its attributes; of other classes a copy may share what it holds
        for key, value in held.items():
            copied[key] = value
    except Exception:  # made in a way of its own, or not to be written: its entries are what counts
        return dict(held)
    return copied


def split_batch(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Positional inputs, named inputs and targets of a batch.

    A tuple's or list's last element is the target; a mapping's target is its entry `labels`, `label`,
    `targets`, `target` or `y`. Raises InputError for anything else.
    """
    parts = _parts(batch)
    if parts is None:
        raise InputError(
            "train_loader",
            describe(batch),
            "a batch is not (inputs, targets), nor a mapping with a target",
            "hand over step=lambda model, batch: loss",
        )
    return parts


def _parts(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any] | None:
    if isinstance(batch, (tuple, list)) and len(batch) >= 2 and not isinstance(batch, PackedSequence):
        return tuple(batch[:-1]), {}, batch[-1]
    if isinstance(batch, Mapping):
        name = next((n for n in _TARGET_NAMES if n in batch), None)
        if name is not None:
            return (), {key: value for key, value in batch.items() if key != name}, batch[name]
    return None


def count_targets(batch: Any, ignored: int = -100) -> int:
    """The weight of a batch in a mean over batches: its number of targets.

    That is `num_graphs` of a batch of graphs, else the elements of the target's first tensor (of labels,
    those that are not `ignored`), or the length of a target that is a list of texts or of mappings. Without a
    target it is the length of the batch's first tensor; 1 where there is none.
    """
    graphs = getattr(batch, "num_graphs", None)
    if isinstance(graphs, int):
        return graphs
    _, _, target = _parts(batch) or ((), {}, None)
    found = _count(target, ignored)
    if found is None:
        found = next((len(tensor) for tensor in _tensors(batch) if tensor.ndim), 1)
    return found


def _count(target: Any, ignored: int) -> int | None:
    if isinstance(target, PackedSequence):
        target = target.data
    if isinstance(target, Tensor):
        if target.dtype == torch.int64 and target.layout is torch.strided and target.ndim:
            return int((target != ignored).sum())
        return target.numel() if target.ndim else None
    if isinstance(target, np.ndarray):
        return target.size
    if has_a_row_each(target):
        return len(target)
    counts = (_count(value, ignored) for value in (entries(target) or {}).values())
    return next((count for count in counts if count is not None), None)


def has_a_row_each(batch: Any) -> bool:
    """Whether a list or tuple holds one thing for each row: texts, mappings, tensors of several lengths."""
    if not isinstance(batch, (list, tuple)) or hasattr(batch, "_fields"):
        return False
    if any(isinstance(value, Tensor) for value in batch):
        lengths = {len(value) if isinstance(value, Tensor) and value.ndim else None for value in batch}
        return isinstance(batch, list) and len(lengths) > 1 and None not in lengths
    return all(isinstance(value, Mapping) or entries(value) is None for value in batch)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    for value in (entries(batch) or {}).values():
        yield from _tensors(value)


def describe(batch: Any) -> str:
    """Types and shapes of a batch in one line, such as ``(float32[64, 784], int64[64])``."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')}{list(batch.shape)}"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{key}: {describe(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, (tuple, list)):
        return "(" + ", ".join(describe(value) for value in batch) + ")"
    return type(batch).__name__
