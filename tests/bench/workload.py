"""What every contestant of the overhead benchmark trains: the same net, optimizer, batches and loader."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

BATCH, INPUTS, CLASSES = 64, 784, 10
MIN_LR, MAX_LR = 1e-7, 1e-2
"""Low enough that no loss rises: nobody stops before the last step."""
_BATCHES_IN_MEMORY = 64
_CALIBRATIONS, _TRIALS, _TRIAL_S = 5, 3, 1.0


@dataclass(frozen=True)
class Sample:
    """One timed sweep: its seconds, and the losses that the contestant recorded."""

    seconds: float
    steps: int


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """`steps` ready batches, which come round from a few that lie in memory."""

    def __init__(self, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self._inputs = torch.randn(_BATCHES_IN_MEMORY, BATCH, INPUTS, generator=generator)
        self._targets = torch.randint(CLASSES, (_BATCHES_IN_MEMORY, BATCH), generator=generator)
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        if k >= self._steps:
            raise IndexError(k)
        return self._inputs[k % _BATCHES_IN_MEMORY], self._targets[k % _BATCHES_IN_MEMORY]


@dataclass(frozen=True)
class Workload:
    """A net 784-`width`-10 with ReLU under SGD (momentum 0.9), batches of 64, one epoch of `steps` steps."""

    width: int
    steps: int

    @cached_property
    def loader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The one loader: a DataLoader that hands on ready batches."""
        return DataLoader(Batches(self.steps), batch_size=None)

    def model(self) -> nn.Module:
        """The net, each time with the same weights, in train mode."""
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(INPUTS, self.width), nn.ReLU(), nn.Linear(self.width, CLASSES))

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        """Its optimizer."""
        return torch.optim.SGD(model.parameters(), lr=MIN_LR, momentum=0.9)


def bare(work: Workload) -> Sample:
    """The loop that one writes by hand: forward, backward, update, the loss read; the lr stands still."""
    model = work.model()
    optimizer = work.optimizer(model)
    loss_function = nn.CrossEntropyLoss()
    losses = []
    begin = time.perf_counter()
    for inputs, targets in work.loader:
        optimizer.zero_grad()
        loss = loss_function(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Sample(time.perf_counter() - begin, len(losses))


def calibrate(step_s: float) -> int:
    """The width at which the bare loop's step takes `step_s` seconds here, when nothing disturbs it.

    The step's time grows with the width, with an offset, so ``width * step_s / measured`` closes in on it.
    """
    width = 64
    steps = max(5, round(_TRIAL_S / step_s))
    for _ in range(_CALIBRATIONS):
        measured = min(bare(Workload(width, steps)).seconds for _ in range(_TRIALS)) / steps
        width = max(8, round(width * min(4.0, max(0.25, step_s / measured)) / 8) * 8)
    return width
