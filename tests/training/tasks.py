"""Small tasks that train in milliseconds, and an observer that keeps what it hears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.training.run_trial import run_trial
from lrsearch.training.task import Task

CPU = torch.device("cpu")
INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS[:, :2].argmax(1)
DATA = TensorDataset(INPUTS, TARGETS)
EPOCH = 8
"""Updates an epoch of `small_task`."""


@dataclass
class Listener:
    """Keeps what a trial tells."""

    model_info: list[dict[str, Any]] = field(default_factory=list)
    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def begin(self, model_info: Mapping[str, Any]) -> None:
        self.model_info.append(dict(model_info))

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        self.points.append((step, dict(metrics)))

    def column(self, name: str) -> dict[int, float]:
        return {step: metrics[name] for step, metrics in self.points if name in metrics}


def sgd(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
    return SGD(parameters, lr=lr, momentum=0.9)


class SAM(Optimizer):
    """Sharpness-aware minimisation: its `step` needs a closure, which it calls optional.

    It finds the gradients there, climbs, takes the closure's, and leaves the update to SGD. Source: Foret et
    al. 2020; as in github.com/davda54/sam.
    """

    def __init__(self, parameters: Iterator[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"rho": 0.05, "lr": lr, "momentum": 0.9})
        self.base = SGD(self.param_groups, lr=lr, momentum=0.9)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is not None, "SAM requires closure, but it was not provided"
        parameters = [p for group in self.param_groups for p in group["params"]]
        norm = torch.stack([p.grad.norm() for p in parameters]).norm()
        for p in parameters:
            self.state[p]["before"] = p.clone()
            p.add_(p.grad * 0.05 / norm)
        with torch.enable_grad():
            closure()
        for p in parameters:
            p.copy_(self.state[p]["before"])
        self.base.step()

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self.base.param_groups = self.param_groups


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).float().mean()


def small_task(**changed: Any) -> Task:
    """A linear classifier on 64 rows, 8 updates an epoch, validated on all rows in batches of 48 and 16."""
    parts: dict[str, Any] = {
        "model": lambda: nn.Linear(4, 2),
        "optimizer": sgd,
        "loss": nn.CrossEntropyLoss(),
        "train_loader": DataLoader(DATA, batch_size=8, shuffle=True),
        "val_loader": DataLoader(DATA, batch_size=48),
        "metrics": {"accuracy": accuracy},
    }
    return Task(**{**parts, **changed})


def make_spec(lr: float = 0.05, steps: int = 20, name: str = "constant", **changed: Any) -> TrialSpec:
    values: dict[str, Any] = {"stage": "coarse", "schedule": {"name": name}, "seed": 0, **changed}
    return TrialSpec(lr=lr, steps=steps, **values)


def run(
    subject: Any, spec: TrialSpec | None = None, objective: str = "val/loss", **options: Any
) -> tuple[TrialResult, Listener]:
    listener = Listener()
    return run_trial(subject, spec or make_spec(), CPU, listener, objective=objective, **options), listener
