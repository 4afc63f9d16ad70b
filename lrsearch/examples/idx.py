"""The IDX format of the MNIST family: a magic number, the sizes, the bytes; often in gzip."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lrsearch.errors import InputError

_UNSIGNED_BYTE = 8


def read_images(name: str, places: Sequence[str], mend: str) -> tuple[TensorDataset, TensorDataset]:
    """Training and test set of the MNIST family: images float32 [n, 784], labels int64 [n].

    Pixels are standardised: the training set's have mean 0 and standard deviation 1. Looked for in
    ``$LRSEARCH_DATA/<name>``, then in `places`. Raises InputError with the `mend` where it is
    missing or damaged.
    """
    folder = _find_folder(name, places, mend)
    train, test = _read_set(name, folder, "train"), _read_set(name, folder, "t10k")
    mean, sd = train.tensors[0].mean(), train.tensors[0].std()
    for part in (train, test):
        part.tensors[0].sub_(mean).div_(sd)
    return train, test


def _read_set(name: str, folder: Path, part: str) -> TensorDataset:
    images = _read(folder / f"{part}-images-idx3-ubyte").flatten(1).float() / 255
    labels = _read(folder / f"{part}-labels-idx1-ubyte").long()
    if len(images) != len(labels):
        raise InputError(
            "task",
            name,
            f"{len(images)} images and {len(labels)} labels in {folder}",
            "fetch the files again",
        )
    return TensorDataset(images, labels)


def _find_folder(name: str, places: Sequence[str], mend: str) -> Path:
    own = os.environ.get("LRSEARCH_DATA")
    candidates = ([Path(own) / name] if own else []) + [Path(place) for place in places]
    for folder in candidates:
        if any(folder.glob("train-images-idx3-ubyte*")):
            return folder
    searched = " and ".join(str(folder) for folder in candidates) or "nowhere, for LRSEARCH_DATA is not set"
    raise InputError(
        "task",
        name,
        f"its files are missing (searched: {searched})",
        f"{mend}, or put them into $LRSEARCH_DATA/{name}",
    )


def _read(path: Path) -> Tensor:
    packed = path.with_name(path.name + ".gz")
    try:
        content = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, f"cannot be read ({error})") from error
    dimensions = content[3] if len(content) > 4 and content[2] == _UNSIGNED_BYTE else 0
    start = 4 + 4 * dimensions
    if dimensions == 0 or len(content) < start:
        raise _damaged(path, "is not an IDX file of bytes")
    sizes = np.frombuffer(content[4:start], dtype=">u4").tolist()
    if len(content) - start != math.prod(sizes):
        raise _damaged(path, f"has {len(content) - start} bytes, and should have {math.prod(sizes)}")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=start).reshape(sizes).copy())


def _damaged(path: Path, problem: str) -> InputError:
    return InputError("task", path.name, f"{problem}, in {path.parent}", "fetch the file again")
