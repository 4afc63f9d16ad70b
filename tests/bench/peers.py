"""Range tests of other packages, and MLflow called by hand, on the benchmark's workload.

Inside of the timed section the finder is made, sweeps, and puts model and optimizer back. Outside are plots,
suggestions (fastai's default takes seconds), and the making of trainers, learners and MLflow's run. No finder
may stop early. Progress bars are drawn into nothing.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.bench.workload import MAX_LR, MIN_LR, Sample, Workload

_TRACKING_URI = "MLFLOW_TRACKING_URI"

Peer = Callable[[Workload, Path], Sample]
"""Called with a folder for its own files."""


def torch_lr_finder(work: Workload, place: Path) -> Sample:
    """`LRFinder(...).range_test(...)`, then `reset()`."""
    package = import_module("torch_lr_finder")
    model = work.model()
    optimizer = work.optimizer(model)
    begin = time.perf_counter()
    finder = package.LRFinder(model, optimizer, nn.CrossEntropyLoss())
    finder.range_test(work.loader, end_lr=MAX_LR, num_iter=work.steps, diverge_th=math.inf)
    finder.reset()
    return Sample(time.perf_counter() - begin, len(finder.history["loss"]))


def ignite(work: Workload, place: Path) -> Sample:
    """`FastaiLRFinder` attached to a supervised trainer."""
    model = work.model()
    optimizer = work.optimizer(model)
    make_trainer = import_module("ignite.engine").create_supervised_trainer
    trainer = make_trainer(model, optimizer, nn.CrossEntropyLoss())
    begin = time.perf_counter()
    finder = import_module("ignite.handlers").FastaiLRFinder()
    kept = {"model": model, "optimizer": optimizer}
    ends = {"start_lr": MIN_LR, "end_lr": MAX_LR}
    with finder.attach(trainer, kept, num_iter=work.steps, diverge_th=math.inf, **ends) as attached:
        attached.run(work.loader)
    return Sample(time.perf_counter() - begin, len(finder.get_results()["loss"]))


def fastai(work: Workload, place: Path) -> Sample:
    """`Learner.lr_find` with torch's SGD."""
    optimizer = import_module("fastai.optimizer").OptimWrapper
    import_module("fastai.callback.schedule")  # gives the learner its lr_find
    learner = import_module("fastai.learner").Learner(
        import_module("fastai.data.core").DataLoaders(work.loader, work.loader),
        work.model(),
        loss_func=nn.CrossEntropyLoss(),
        opt_func=partial(optimizer, opt=partial(torch.optim.SGD, momentum=0.9)),
        path=place,
    )
    begin = time.perf_counter()
    learner.lr_find(MIN_LR, MAX_LR, work.steps, stop_div=False, show_plot=False, suggest_funcs=None)
    return Sample(time.perf_counter() - begin, len(learner.recorder.losses))


def lightning(work: Workload, place: Path) -> Sample:
    """`Tuner.lr_find` on a trainer without logger, checkpoints, bar and summary."""
    package = import_module("lightning.pytorch")
    base: Any = package.LightningModule
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Net(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = work.model()
            self.loss = nn.CrossEntropyLoss()
            self.lr = MIN_LR

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Any:
            return self.loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return work.optimizer(self.net)

    trainer = package.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=place,
    )
    tuner = import_module("lightning.pytorch.tuner").Tuner(trainer)
    net = Net()
    ends = {"min_lr": MIN_LR, "max_lr": MAX_LR}
    begin = time.perf_counter()
    finder = tuner.lr_find(
        net, work.loader, num_training=work.steps, early_stop_threshold=None, update_attr=False, **ends
    )
    return Sample(time.perf_counter() - begin, len(finder.results["loss"]))


def naive_mlflow(work: Workload, place: Path) -> Sample:
    """A sweep by hand that calls `mlflow.log_metrics` at every step, on SQLite, in an open run."""
    import mlflow

    model = work.model()
    optimizer = work.optimizer(model)
    loss_function = nn.CrossEntropyLoss()
    factor = (MAX_LR / MIN_LR) ** (1 / (work.steps - 1))
    lr, smoothed, steps = MIN_LR, 0.0, 0
    with tracking_to(f"sqlite:///{place}/mlflow.db"), mlflow.start_run():
        begin = time.perf_counter()
        for steps, (inputs, targets) in enumerate(work.loader, start=1):
            optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad()
            loss = loss_function(model(inputs), targets)
            loss.backward()
            optimizer.step()
            value = loss.item()
            smoothed = 0.98 * smoothed + 0.02 * value
            metrics = {"lr": lr, "train/loss": value, "train/loss_smoothed": smoothed / (1 - 0.98**steps)}
            mlflow.log_metrics(metrics, step=steps)
            lr *= factor
        return Sample(time.perf_counter() - begin, steps)


@contextlib.contextmanager
def tracking_to(uri: str) -> Iterator[None]:
    """MLflow's server for a while; `mlflow.set_tracking_uri` would outlast the benchmark."""
    before = os.environ.get(_TRACKING_URI)
    os.environ[_TRACKING_URI] = uri
    try:
        yield
    finally:
        del os.environ[_TRACKING_URI]
        if before is not None:
            os.environ[_TRACKING_URI] = before


PEERS: dict[str, tuple[str, Peer]] = {
    "torch-lr-finder": ("torch-lr-finder", torch_lr_finder),
    "Ignite": ("pytorch-ignite", ignite),
    "fastai": ("fastai", fastai),
    "Lightning": ("lightning", lightning),
}
"""By the name in the table: the distribution and its sweep."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What peers print and warn of goes nowhere."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def able_peers(work: Workload, place: Path) -> tuple[dict[str, Peer], dict[str, str], dict[str, str]]:
    """The peers that run here, tried on `work`; the versions; and of the others, why not."""
    able, versions, missing = {}, {}, {}
    for name, (distribution, sweep) in PEERS.items():
        try:
            with quiet():
                sample = sweep(work, place)
        except Exception as error:
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        if sample.steps != work.steps:
            missing[name] = f"it took {sample.steps} steps of {work.steps}"
            continue
        able[name], versions[name] = sweep, version(distribution)
    return able, versions, missing
