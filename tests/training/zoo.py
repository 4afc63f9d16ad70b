"""Kinds of model, optimizer and loader that real training scripts have, each built anew from one seed."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset

FEATURES, CLASSES, WORDS = 6, 3, 11


@dataclass
class Setup:
    """What a user holds: model, optimizer, loader, perhaps a scaler; `order` records the batches seen."""

    model: nn.Module
    optimizer: Optimizer
    loader: Any
    scaler: torch.amp.GradScaler | None = None
    order: list[float] = field(default_factory=list)


def batches(setup: Setup, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    done = 0
    while True:
        for inputs, targets in setup.loader:
            if done == steps:
                return
            setup.order.append(float(inputs.double().sum()))
            yield inputs, targets
            done += 1


def train(setup: Setup, steps: int, scheduler: LRScheduler | None = None) -> list[float]:
    """An ordinary loop, with a closure (LBFGS needs it) or a scaler; returns the losses."""
    losses = []
    for inputs, targets in batches(setup, steps):

        def closure(inputs: Tensor = inputs, targets: Tensor = targets) -> float:
            setup.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=setup.scaler is not None):
                loss: Tensor = nn.functional.cross_entropy(setup.model(inputs).float(), targets)
            (loss if setup.scaler is None else setup.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
            return loss.item()

        if setup.scaler is None:
            losses.append(setup.optimizer.step(closure))
            stepped = True
        else:
            losses.append(closure())
            scale = setup.scaler.get_scale()
            setup.scaler.step(setup.optimizer)
            setup.scaler.update()
            stepped = setup.scaler.get_scale() >= scale  # not so after infinite gradients
        if scheduler is not None and stepped:
            scheduler.step()
    return losses


class Words(nn.Module):
    """Embedding and output layer share one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, FEATURES)
        self.out = nn.Linear(FEATURES, WORDS, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.embedding(words).mean(1))  # type: ignore[no-any-return]


class SparseWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, CLASSES, sparse=True)

    def forward(self, words: Tensor) -> Tensor:
        return self.embedding(words).mean(1)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """Carries its hidden state from batch to batch in a plain attribute, as stateful networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(FEATURES, 4, batch_first=True)
        self.out = nn.Linear(4, CLASSES)
        self.hidden: Tensor | None = None
        self.calls = 0
        self.seen: list[float] = []
        self.latest: deque[float] = deque(maxlen=2)

    def forward(self, inputs: Tensor) -> Tensor:
        output, hidden = self.cell(inputs[:, None], self.hidden)
        self.hidden = hidden.detach()
        self.calls += 1
        self.seen.append(float(hidden.detach().sum()))
        self.latest.append(self.seen[-1])
        return self.out(output[:, -1])  # type: ignore[no-any-return]


class Buffers(nn.Module):
    """A buffer that is not in the state_dict, an expanded one, a tuple of tensors and a generator."""

    running: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)
        self.register_buffer("running", torch.zeros(FEATURES), persistent=False)
        self.register_buffer("mask", torch.ones(1).expand(4, FEATURES))
        self.noise = torch.Generator().manual_seed(5)
        self.range = (torch.zeros(FEATURES), torch.zeros(FEATURES))

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            self.running += inputs.mean(0)
            self.range[0].add_(inputs.amin(0))
            self.range[1].add_(inputs.amax(0))
        noisy = inputs + torch.rand(inputs.shape, generator=self.noise)
        return self.out(noisy * self.mask - self.running)  # type: ignore[no-any-return]


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Draws its noise from NumPy's global generator, from `random` and from a generator of its own."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(3)

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = self.rng.normal() + np.random.rand() + random.random()  # noqa: NPY002
        return torch.full((FEATURES,), index / 8) + noise, torch.tensor(index % CLASSES)


def net(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), *layers, nn.ReLU(), nn.Linear(8, CLASSES))


def loader(**options: Any) -> DataLoader[Any]:
    data = TensorDataset(torch.randn(16, FEATURES), torch.randint(CLASSES, (16,)))
    return DataLoader(data, **({"batch_size": 4, "shuffle": True} | options))


def words_loader(classes: int) -> DataLoader[Any]:
    data = TensorDataset(torch.randint(WORDS, (16, 5)), torch.randint(classes, (16,)))
    return DataLoader(data, batch_size=4, shuffle=True)


def with_optimizer(kind: Callable[..., Optimizer], **options: Any) -> Setup:
    model = net()
    return Setup(model, kind(model.parameters(), **options), loader())


def with_layer(layer: Callable[[], nn.Module]) -> Setup:
    model = net(layer())
    return Setup(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), loader())


def with_model(model: nn.Module) -> Setup:
    return Setup(model, torch.optim.AdamW(model.parameters(), lr=0.01), loader())


def with_loader(loader: DataLoader[Any]) -> Setup:
    model = net()
    return Setup(model, torch.optim.SGD(model.parameters(), lr=0.1), loader)


def momentum_buffer_none() -> Setup:
    setup = with_optimizer(torch.optim.SGD, lr=0.1, momentum=0.9)
    for parameter in setup.model.parameters():
        setup.optimizer.state[parameter]["momentum_buffer"] = None
    return setup


def lbfgs() -> Setup:
    options = {"lr": 0.1, "max_iter": 3, "history_size": 3, "line_search_fn": "strong_wolfe"}
    return with_optimizer(torch.optim.LBFGS, **options)


def amp() -> Setup:
    setup = with_layer(lambda: nn.BatchNorm1d(8))
    setup.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    return setup


def two_groups() -> Setup:
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES))
    groups = [
        {"params": model[0].parameters(), "lr": 0.1},
        {"params": model[1].parameters(), "lr": 0.01, "weight_decay": 0.1},
    ]
    return Setup(model, torch.optim.SGD(groups, momentum=0.9), loader())


def frozen() -> Setup:
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES))
    model[0].requires_grad_(False)
    return Setup(model, torch.optim.Adam(model[1].parameters(), lr=0.01), loader())


def tied() -> Setup:
    model = Words()
    return Setup(model, torch.optim.Adam(model.parameters(), lr=0.01), words_loader(WORDS))


def sparse() -> Setup:
    model = SparseWords()
    return Setup(model, torch.optim.SparseAdam(model.parameters(), lr=0.01), words_loader(CLASSES))


def eval_inside() -> Setup:
    setup = with_layer(lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.3)))
    setup.model[1][0].eval()  # type: ignore[index]
    return setup


def tensor_lr() -> Setup:
    return with_optimizer(torch.optim.Adam, lr=torch.tensor(0.01), foreach=False)


def schedule_free() -> Setup:
    setup = with_optimizer(AdamWScheduleFree, lr=0.1)
    setup.optimizer.train()  # type: ignore[attr-defined]
    return setup


def gradients() -> Setup:
    setup = with_optimizer(torch.optim.SGD, lr=0.1)
    inputs, targets = next(iter(setup.loader))
    nn.functional.cross_entropy(setup.model(inputs), targets).backward()  # type: ignore[no-untyped-call]
    setup.model[0].bias.grad = None  # type: ignore[index]
    return setup


def bfloat16() -> Setup:
    setup = with_model(net().bfloat16())
    data = TensorDataset(torch.randn(16, FEATURES).bfloat16(), torch.randint(CLASSES, (16,)))
    setup.loader = DataLoader(data, batch_size=4, shuffle=True)
    return setup


def nested_sampler() -> Setup:
    sampler = RandomSampler(range(16), generator=torch.Generator().manual_seed(7))
    return with_loader(loader(batch_sampler=BatchSampler(sampler, 4, False), batch_size=1, shuffle=False))


ZOO: dict[str, Callable[[], Setup]] = {
    "mlp, SGD": lambda: with_optimizer(torch.optim.SGD, lr=0.1),
    "SGD, momentum": lambda: with_optimizer(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "SGD, momentum buffer None": momentum_buffer_none,
    "Adam": lambda: with_optimizer(torch.optim.Adam, lr=0.01),
    "Adam, fused": lambda: with_optimizer(torch.optim.Adam, lr=0.01, fused=True),
    "AdamW, amsgrad": lambda: with_optimizer(torch.optim.AdamW, lr=0.01, amsgrad=True),
    "Adagrad": lambda: with_optimizer(torch.optim.Adagrad, lr=0.1, initial_accumulator_value=0.1),
    "RMSprop, centered": lambda: with_optimizer(torch.optim.RMSprop, lr=0.01, centered=True, momentum=0.5),
    "LBFGS": lbfgs,
    "BatchNorm": lambda: with_layer(lambda: nn.BatchNorm1d(8)),
    "dropout": lambda: with_layer(lambda: nn.Dropout(0.5)),
    "autocast and scaler": amp,
    "two groups": two_groups,
    "frozen layer": frozen,
    "tied weights": tied,
    "sparse gradients": sparse,
    "submodule in eval mode": eval_inside,
    "lr as a tensor": tensor_lr,
    "schedule-free": schedule_free,
    "gradients on entry": gradients,
    "weight norm": lambda: with_layer(lambda: parametrizations.weight_norm(nn.Linear(8, 8))),
    "spectral norm": lambda: with_layer(lambda: parametrizations.spectral_norm(nn.Linear(8, 8))),
    "recurrent, hidden state kept": lambda: with_model(Recurrent()),
    "buffers": lambda: with_model(Buffers()),
    "bfloat16 parameters": bfloat16,
    "loader with generator": lambda: with_loader(loader(generator=torch.Generator().manual_seed(1))),
    "batch sampler with generator": nested_sampler,
    "data set with random numbers": lambda: with_loader(DataLoader(Augmented(), batch_size=4, shuffle=True)),
}


def build(kind: str, *, trained: int = 0) -> Setup:
    """A setup of the kind, the same at each call; `trained` steps are behind it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    setup = ZOO[kind]()
    train(setup, trained)
    return setup
