"""What the record says of a loader's data: names, sizes, and a fingerprint of what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from lrsearch.errors import first_line
from lrsearch.training.data import batch_count, batch_size, entries
from lrsearch.training.loaders import seed_loaders
from lrsearch.training.random_state import preserve_random_state, seed_everything
from lrsearch.training.snapshot import strided_parts

_ITEMS = 64


def describe_data(loader: Iterable[Any] | None) -> dict[str, Any] | None:
    """Name, sizes and fingerprint of a loader's data as plain JSON; None without a loader.

    The fingerprint is the SHA-256 (first 16 hex digits) of the data set's length and up to 64 evenly spaced
    items. Where it cannot be had it is None, and `fingerprint_reason` says why: data that can only be
    iterated has none, since reading it would use it up.
    """
    if loader is None:
        return None
    dataset: Any = getattr(loader, "dataset", loader)
    found: dict[str, Any] = {
        "name": type(dataset).__name__,
        "items": None,
        "batches": batch_count(loader),
        "batch_size": batch_size(loader),
        "fingerprint": None,
    }
    # An IterableDataset has an inherited __getitem__ that raises, and may have a length.
    if not hasattr(dataset, "__getitem__") or isinstance(dataset, IterableDataset):
        return found | {"fingerprint_reason": "it cannot be read by index"}
    try:
        found["items"] = len(dataset)
        found["fingerprint"] = _fingerprint(dataset, found["items"])
    except Exception as error:  # whatever a data set may raise: training may well do without
        return found | {"fingerprint_reason": f"{type(error).__name__}: {first_line(error)}"}
    return found


def _fingerprint(dataset: Any, items: int) -> str:
    digest = hashlib.sha256(str(items).encode())
    with preserve_random_state(loaders=(dataset,)):
        seed_everything(0)  # a data set that augments at random has one fingerprint too
        seed_loaders((dataset,), 0)
        for item in _items(dataset, items):
            _feed(digest, item)
    return digest.hexdigest()[:16]


def _items(dataset: Any, items: int) -> Iterator[Any]:
    """Evenly spaced items: by key of a mapping, by row of a table, by index of all else."""
    taken = min(items, _ITEMS)
    chosen = [k * items // taken for k in range(taken)]
    if isinstance(dataset, Mapping):
        keys = list(dataset)
        yield from ((keys[k], dataset[keys[k]]) for k in chosen)
    elif hasattr(dataset, "iloc"):
        yield from (tuple(np.ravel(dataset.iloc[k : k + 1].to_numpy())) for k in chosen)
    else:
        yield from (dataset[k] for k in chosen)


def _feed(digest: Any, item: Any) -> None:
    if isinstance(item, Tensor):
        for part in strided_parts(item.detach()):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(part.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(item, (np.ndarray, np.generic)) and item.dtype.hasobject:
        _feed(digest, item.tolist())  # its bytes are addresses
    elif (held := entries(item)) is not None:
        for key, value in held.items():
            digest.update(str(key).encode())
            _feed(digest, value)
    elif hasattr(item, "tobytes"):
        digest.update(item.tobytes())
    else:
        plain = item is None or isinstance(item, (bool, int, float, complex, str, bytes, date, PurePath))
        digest.update(
            (repr(item) if plain else type(item).__qualname__).encode()
        )  # a repr may hold an address
