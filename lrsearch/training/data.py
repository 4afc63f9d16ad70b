"""Batches: moved to a device, split, described, and their data fingerprinted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from lrsearch.errors import InputError
from lrsearch.training.state import preserve_random_state, seed_everything, seed_loaders

_TARGET_NAMES = ("labels", "label", "targets", "target", "y")
_FINGERPRINT_ITEMS = 64


def check_batches(loader: object) -> None:
    """Raises InputError for a training loader that is not iterable, or knows of fewer than two batches."""
    if not isinstance(loader, Iterable):
        raise InputError("train_loader", loader, "is not iterable", "hand over a DataLoader")
    batches = batch_count(loader)
    if batches is not None and batches < 2:
        raise InputError(
            "train_loader",
            loader,
            f"has {batches} batches" if batches != 1 else "has a single batch",
            "hand over at least two; a smaller batch_size makes more",
        )


def batch_count(loader: Iterable[Any]) -> int | None:
    """Batches an epoch, or None where the loader does not know (iterable data sets, generators)."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:
        return None


def batch_size(loader: Iterable[Any]) -> int | None:
    """Rows a batch as the loader or its batch sampler states it, or None."""
    for owner in (loader, getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None)):
        size = getattr(owner, "batch_size", None)
        if isinstance(size, int):
            return size
    return None


def to_device(batch: Any, device: torch.device) -> Any:
    """The same batch with every tensor on `device`; tuples, lists and mappings are searched."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch.to(device) if hasattr(batch, "to") else batch


def split_batch(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Positional inputs, named inputs and targets of a batch.

    A tuple's or list's last element is the target; a mapping's target is its entry `labels`, `label`,
    `targets`, `target` or `y`. Raises InputError for anything else.
    """
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        return tuple(batch[:-1]), {}, batch[-1]
    if isinstance(batch, Mapping):
        name = next((n for n in _TARGET_NAMES if n in batch), None)
        if name is not None:
            return (), {key: value for key, value in batch.items() if key != name}, batch[name]
    raise InputError(
        "train_loader",
        describe(batch),
        "a batch is not (inputs, targets), nor a mapping with a target",
        "hand over step=lambda model, batch: loss",
    )


def count_rows(batch: Any) -> int:
    """Rows of a batch: the length of its first tensor that has a dimension; 1 where there is none."""
    return next((len(tensor) for tensor in _tensors(batch) if tensor.ndim), 1)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, (Mapping, tuple, list)):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
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


def describe_data(loader: Iterable[Any] | None) -> dict[str, Any] | None:
    """Name, sizes and fingerprint of a loader's data as plain JSON; None without a loader.

    The fingerprint is the SHA-256 (first 16 hex digits) of the data set's length and up to 64 evenly spaced
    items; data that can only be iterated has none, since reading it would use it up.
    """
    if loader is None:
        return None
    dataset: Any = getattr(loader, "dataset", loader)
    # An IterableDataset has an inherited __getitem__ that raises, and may have a length.
    indexed = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
    items = len(dataset) if indexed and hasattr(dataset, "__len__") else None
    return {
        "name": type(dataset).__name__,
        "items": items,
        "batches": batch_count(loader),
        "batch_size": batch_size(loader),
        "fingerprint": None if items is None else _fingerprint(dataset, items),
    }


def _fingerprint(dataset: Any, items: int) -> str:
    digest = hashlib.sha256(str(items).encode())
    taken = min(items, _FINGERPRINT_ITEMS)
    with preserve_random_state(loaders=(dataset,)):
        seed_everything(0)  # a data set that augments at random has one fingerprint too
        seed_loaders((dataset,), 0)
        for k in range(taken):
            _feed(digest, dataset[k * items // taken])
    return digest.hexdigest()[:16]


def _feed(digest: Any, item: Any) -> None:
    if isinstance(item, Tensor):
        digest.update(f"{item.dtype}{tuple(item.shape)}".encode())
        digest.update(item.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(item, Mapping):
        for key, value in item.items():
            digest.update(str(key).encode())
            _feed(digest, value)
    elif isinstance(item, (tuple, list)):
        for value in item:
            _feed(digest, value)
    elif hasattr(item, "tobytes"):
        digest.update(item.tobytes())
    else:
        plain = item is None or isinstance(item, (bool, int, float, str, bytes))
        digest.update(
            (repr(item) if plain else type(item).__qualname__).encode()
        )  # a repr may hold an address
