"""What the learning-rate finders of other packages suggest on the tasks, kept in `results/oracle/peers.csv`.

Each has its own documented defaults. torch-lr-finder, fastai and Lightning take 100 steps, Ignite one epoch.
torch-lr-finder and Ignite begin at the optimizer's lr, which is 1e-7 here as in the former's README; fastai
begins at 1e-7, Lightning at 1e-8. Lightning ends at 1, the others at 10. All stop early where they see fit.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import Optimizer

from lrsearch.errors import first_line
from lrsearch.training.random_state import seed_everything, single_threaded
from lrsearch.training.task import Task
from tests.bench.peers import quiet
from tests.bench.regret.oracle import FOLDER, setting_of
from tests.bench.regret.table import Table
from tests.bench.regret.tasks import CASES, Case

SEEDS = 10
CLIP = {"moby-gru": 1.0}
"""Norms at which tasks clip the gradient. Their own optimizers do so before a step: too early where the step
itself computes the gradient, as in Lightning.
"""
_START_LR = 1e-7

Finder = Callable[[Task, nn.Module, Optimizer, Path], float | None]
"""Called with a task, its model and optimizer, and a folder for its own files."""


@dataclass(frozen=True)
class Suggested:
    """One sweep of one peer: the lr, None where it gave none, and what it cost; `error` is what it raised."""

    task: str
    peer: str
    seed: int
    lr: float | None
    steps: int
    cost: float
    error: str | None


TABLE = Table(FOLDER / "peers.csv", Suggested)


def torch_lr_finder(task: Task, model: nn.Module, optimizer: Optimizer, place: Path) -> float | None:
    """`LRFinder.range_test`, and the suggestion that its `plot` makes."""
    finder = import_module("torch_lr_finder").LRFinder(model, optimizer, task.loss)
    finder.range_test(task.train_loader)
    _, lr = finder.plot(ax=Figure().subplots())
    return float(lr)


def ignite(task: Task, model: nn.Module, optimizer: Optimizer, place: Path) -> float | None:
    """`FastaiLRFinder` attached to a supervised trainer."""
    trainer = import_module("ignite.engine").create_supervised_trainer(model, optimizer, task.loss)
    finder = import_module("ignite.handlers").FastaiLRFinder()
    with finder.attach(trainer, {"model": model, "optimizer": optimizer}) as attached:
        attached.run(task.train_loader)
    return float(finder.lr_suggestion())


def fastai(task: Task, model: nn.Module, optimizer: Optimizer, place: Path, *, rule: str) -> float | None:
    """`Learner.lr_find` with one of its suggestion functions."""
    schedule = import_module("fastai.callback.schedule")  # gives the learner its lr_find
    learner = import_module("fastai.learner").Learner(
        import_module("fastai.data.core").DataLoaders(task.train_loader, task.train_loader),
        model,
        loss_func=task.loss,
        opt_func=import_module("fastai.optimizer").OptimWrapper(opt=optimizer),
        path=place,
    )
    found = learner.lr_find(show_plot=False, suggest_funcs=getattr(schedule, rule))
    return float(getattr(found, rule))


def lightning(task: Task, model: nn.Module, optimizer: Optimizer, place: Path) -> float | None:
    """`Tuner.lr_find` on a trainer without logger, checkpoints, bar and summary."""
    package = import_module("lightning.pytorch")
    base: Any = package.LightningModule
    logging.getLogger("lightning.pytorch").setLevel(logging.CRITICAL)

    class Net(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Any:
            assert task.loss is not None
            return task.loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Optimizer:
            return optimizer

    trainer = package.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=CLIP.get(task.name or ""),
        default_root_dir=place,
    )
    tuner = import_module("lightning.pytorch.tuner").Tuner(trainer)
    lr = tuner.lr_find(Net(), task.train_loader, update_attr=False).suggestion()
    return None if lr is None else float(lr)


PEERS: dict[str, Finder] = {
    "torch-lr-finder": torch_lr_finder,
    "Ignite": ignite,
    **{f"fastai {rule}": partial(fastai, rule=rule) for rule in ("valley", "slide", "steep", "minimum")},
    "Lightning": lightning,
}


def compute() -> None:
    """Runs the sweeps that the table lacks."""
    have = {(row.task, row.peer, row.seed) for row in TABLE.read()}
    with single_threaded():
        for case in CASES.values():
            whole = setting_of(case).config.total_steps
            for peer, seed in itertools.product(PEERS, range(SEEDS)):
                if (case.name, peer, seed) not in have:
                    TABLE.append(suggest(case, peer, seed, whole))
            print(f"{case.name}: {len(PEERS)} peers, {SEEDS} seeds", flush=True)


def peer_names() -> tuple[str, ...]:
    """All peers."""
    return tuple(PEERS)


def peer_suggestion(task: str, peer: str, number: int) -> tuple[float | None, float]:
    """The lr that a peer suggests in a study of this number, None where it gives none, and its cost."""
    found = _by_key()[task, peer, number % SEEDS]
    return found.lr, found.cost


def suggest(case: Case, peer: str, seed: int, whole: int) -> Suggested:
    """One sweep; `whole` are the steps of a full training."""
    steps, lr, error = 0, None, None

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    with tempfile.TemporaryDirectory() as place, quiet():
        seed_everything(seed)
        model, optimizer = case.task.build(_START_LR, torch.device("cpu"))
        optimizer.register_step_post_hook(count)
        try:
            lr = PEERS[peer](case.task, model, optimizer, Path(place))
        except Exception as problem:  # what a user would see instead of an lr: it is kept in the table
            error = f"{type(problem).__name__}: {first_line(problem)}"
    lr = None if lr is None else float(f"{lr:.4g}")
    return Suggested(case.name, peer, seed, lr, steps, float(f"{steps / whole:.4g}"), error)


@cache
def _by_key() -> dict[tuple[str, str, int], Suggested]:
    return {(row.task, row.peer, row.seed): row for row in TABLE.read()}
