"""What the image tasks share: a small net, the optimizers by name, loaders over tensors in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from lrsearch.training.task import Task

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta"]

_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
}
_EVALUATION_BATCH = 1000


def mlp_task(
    name: str,
    train: TensorDataset,
    val: TensorDataset,
    *,
    optimizer: OptimizerName,
    batch_size: int,
    hidden: int,
    momentum: float,
    batch_norm: bool,
) -> Task:
    """A task for a net with one hidden layer; `momentum` is SGD's alone."""
    inputs = train.tensors[0].shape[1]
    settings = {"momentum": momentum} if optimizer == "sgd" else {}

    def make_optimizer(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
        return _OPTIMIZERS[optimizer](parameters, lr=lr, **settings)

    return Task(
        model=partial(make_mlp, inputs, hidden, batch_norm),
        optimizer=make_optimizer,
        loss=nn.CrossEntropyLoss(),
        train_loader=make_loader(train, batch_size, shuffle=True),
        val_loader=make_loader(val, _EVALUATION_BATCH, shuffle=False),
        metrics={"accuracy": accuracy},
        name=name,
    )


def make_mlp(inputs: int, hidden: int, batch_norm: bool) -> nn.Module:
    """inputs - hidden - 10, with ReLU, and batch normalisation where asked."""
    norm = [nn.BatchNorm1d(hidden)] if batch_norm else []
    return nn.Sequential(nn.Linear(inputs, hidden), *norm, nn.ReLU(), nn.Linear(hidden, 10))


def make_loader(data: TensorDataset, batch_size: int, *, shuffle: bool) -> DataLoader[tuple[Tensor, ...]]:
    """A loader that picks a whole batch by one index: many times faster than collating single rows."""
    sampler = RandomSampler(data) if shuffle else SequentialSampler(data)
    return DataLoader(data, sampler=BatchSampler(sampler, batch_size, drop_last=False), batch_size=None)


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of right answers."""
    return (outputs.argmax(dim=1) == targets).float().mean()
