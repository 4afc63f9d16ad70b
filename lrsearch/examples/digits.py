"""Scanned digits, 1,797 images of 8 by 8 pixels, which scikit-learn carries: nothing to download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from lrsearch.examples.classification import OptimizerName, mlp_task
from lrsearch.training.task import Task

_TRAIN = 1437  # four fifths


def task(
    optimizer: OptimizerName = "sgd",
    batch_size: int = 32,
    hidden: int = 64,
    momentum: float = 0.9,
    batch_norm: bool = False,
) -> Task:
    """A net 64-hidden-10 on digits; a fixed fifth of the images is held out for validation."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(data.data / 16.0, dtype=torch.float32)[order]
    labels = torch.tensor(data.target, dtype=torch.int64)[order]
    return mlp_task(
        "digits",
        TensorDataset(images[:_TRAIN], labels[:_TRAIN]),
        TensorDataset(images[_TRAIN:], labels[_TRAIN:]),
        optimizer=optimizer,
        batch_size=batch_size,
        hidden=hidden,
        momentum=momentum,
        batch_norm=batch_norm,
    )
