"""The range test as a person calls it: validated, swept, recorded, judged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from lrsearch.core.divergence import Divergence
from lrsearch.core.observer import Observer, Observers
from lrsearch.core.suggest import combine, suggest
from lrsearch.core.sweep_plan import Precision, Spacing, Stop, SweepPlan, validated
from lrsearch.errors import InputError
from lrsearch.study.subject import called, data_of, kwargs_of
from lrsearch.study.sweep_record import RangeTestRecord
from lrsearch.study.sweep_result import RangeTest
from lrsearch.tracking.destination import find_destination
from lrsearch.tracking.folder import create_folder, range_test_name
from lrsearch.training.custom_loop import CustomLoop
from lrsearch.training.subjects import FromTask, ModelInUse, is_train_function
from lrsearch.training.sweep import sweep
from lrsearch.training.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer

    from lrsearch.training.snapshot import Keep
    from lrsearch.training.subjects import TaskFunction
    from lrsearch.training.task import LossFunction, StepFunction
    from lrsearch.training.trial import TrainFunction


def range_test(
    model: nn.Module | Task | TrainFunction | TaskFunction,
    optimizer: Optimizer | None = None,
    loss: LossFunction | None = None,
    train_loader: Iterable[Any] | None = None,
    *,
    step: StepFunction | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    steps: int | None = None,
    spacing: Spacing = "log",
    smoothing: float = 0.98,
    repeats: int = 1,
    seed: int = 0,
    stop: Stop = "auto",
    divergence: Divergence = "auto",
    accumulate: int | None = None,
    clip: float | None = None,
    precision: Precision | None = None,
    device: str | torch.device | None = None,
    tracking: bool = True,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    out: str | os.PathLike[str] | None = None,
    keep: Keep = "device",
    progress: Observer | bool = True,
) -> RangeTest:
    """Train while the learning rate rises, and read a learning rate off the losses.

    The rate rises once per update from `min_lr` to `max_lr`. The model, the optimizer, the loader's generator
    and all random states are put back bit for bit, whatever happens; of a training function all random
    states are, for what it trains is its own.

    Parameters
    ----------
    model : nn.Module, Task or function
        One of three: a model, together with its `optimizer`, `loss` and `train_loader`; a `Task`, or the
        function without arguments that makes it; or a training function ``train(trial)``, see `Trial`. A Task
        and a training function are given alone.
    optimizer : torch.optim.Optimizer, optional
        The model's optimizer. If it has several param groups, they keep the ratios of their lrs; only the
        groups of a Task that do not follow its lr are left alone.
    loss : callable, optional
        ``loss(outputs, targets)``, a scalar tensor. Without it (and without `step`) the model returns the
        loss.
    train_loader : iterable, optional
        The batches, usually a ``DataLoader``. It is started again where it ends before the sweep does.
    step : callable, optional
        ``step(model, batch)`` returns the loss, for batches that are not ``(inputs, targets)``.
    min_lr, max_lr : float
        The first and the last lr of the sweep. They are the lrs that a Task's optimizer is made with, or
        `trial.lr`; for a model with its optimizer they are param group 0's.
    steps : int, optional
        The number of updates: by default one epoch, but at least 100 and at most 1,000; 300 where the length
        of an epoch is not known.
    spacing : {"log", "linear"}
        How the lrs are spaced.
    smoothing : float
        The running average's beta, from 0 (no smoothing) to below 1.
    repeats : int
        The number of seeds, counted from `seed` on. They give several curves and one answer. With a model
        they vary the order of the data and the dropout, with a Task the initial weights too.
    seed : int
        The first seed.
    stop : {"auto", "4x", "none"}
        What ends the sweep early: ``auto``, once the loss has risen for good; ``4x``, the classic rule;
        ``none``, neither. A loss that is not finite always ends it.
    divergence : {"auto", "not_finite", "loss_rose"}
        ``not_finite`` takes nothing but a loss that is not finite for the edge. Choose it where the training
        loss may rise without harm (a GAN's, a curriculum's).
    accumulate : int, optional
        The number of batches that make one update: by default what the Task says, else 1. What is given here
        comes before what the Task says, and likewise of the next two.
    clip : float, optional
        The largest norm of the gradient.
    precision : {"32", "16", "bf16"}, optional
        The precision of the forward pass, by default ``32``: ``16`` is autocast with a GradScaler.
    device : str or torch.device, optional
        Where to train a Task or a training function; by default the accelerator that torch finds, else the
        CPU. A model is trained where it lies.
    tracking : bool
        Whether the test is recorded: in a folder of its own, and from there in MLflow. The training never
        waits for MLflow.
    tracking_uri, experiment : str, optional
        MLflow's server and experiment; by default those of your active run (which becomes the parent), else
        those of the environment, else ``sqlite:///mlflow.db`` and ``lrsearch/<task>``.
    tags : mapping of str to str, optional
        Further tags for the run in MLflow.
    out : str or path, optional
        The folder of the record; by default a new one below ``LRSEARCH_HOME``.
    keep : {"device", "cpu", "disk"}
        Where the copy of the model's state lies during the sweep, see `preserve_state`.
    progress : bool or Observer
        Whether to show a progress bar in a terminal, or an observer to be told of every step.

    Returns
    -------
    RangeTest
        The curves and the suggestion: a learning rate, a bracket and a verdict. For a model with its
        optimizer, ``suggestion.groups`` holds the lr of every param group.

    Raises
    ------
    InputError
        For a wrong argument, before anything is trained. For a training function also during the sweep, if it
        never reports a training loss, leaves steps out, does not build its schedule, or trains at other lrs.
    RecordError
        If the record cannot be written.

    Notes
    -----
    With ``spacing="log"`` update i of N has the learning rate

        lr_i = min_lr * q**i,    q = (max_lr / min_lr) ** (1 / (N - 1)),    i = 0 ... N - 1

    The smoothed loss is ``avg_i = beta * avg_{i-1} + (1 - beta) * loss_i``, divided by ``1 - beta**(i + 1)``;
    the rule ``4x`` stops once it exceeds four times its minimum. The suggestion and the rule ``auto`` read
    the raw losses.

    A batch whose loss is not finite even on the untrained model is passed over and named. Whatever the model
    or the loader raises during the sweep passes through.

    References
    ----------
    - L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2015,
      https://arxiv.org/abs/1506.01186
    - S. Gugger, "How Do You Find A Good Learning Rate", 2018,
      https://sgugger.github.io/how-do-you-find-a-good-learning-rate.html

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> import lrsearch
    >>> _ = torch.manual_seed(0)
    >>> inputs = torch.randn(512, 4)
    >>> targets = inputs.sum(1, keepdim=True) + 0.1 * torch.randn(512, 1)
    >>> loader = DataLoader(TensorDataset(inputs, targets), batch_size=16, shuffle=True)
    >>> model = nn.Linear(4, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> found = lrsearch.range_test(
    ...     model, optimizer, nn.MSELoss(), loader, min_lr=1e-4, steps=100, tracking=False
    ... )
    >>> found.suggestion.verdict
    'ok'
    >>> found.suggestion.bracket.low <= found.lr < found.suggestion.bracket.high
    True
    """
    updates = {"accumulate": accumulate, "clip": clip, "precision": precision}
    asked = {name: value for name, value in updates.items() if value is not None}
    plan = validated(
        SweepPlan,
        min_lr=min_lr,
        max_lr=max_lr,
        steps=steps,
        spacing=spacing,
        smoothing=smoothing,
        repeats=repeats,
        seed=seed,
        stop=stop,
        divergence=divergence,
        **asked,
    )
    given, name = called(model)
    if isinstance(given, Task):
        plan = plan.model_copy(update={**given.settings.said(), **asked})
    subject = _subject(given, optimizer, loss, train_loader, step, keep)
    chosen = subject.check(plan, device)
    with ExitStack() as stack, ExitStack() as shown:
        observers: list[Observer] = []
        record = None
        if tracking:
            data = data_of(subject)  # before the folder is made: the user's data set may raise
            record = RangeTestRecord(
                folder=create_folder(range_test_name(name), out),
                destination=find_destination(f"lrsearch/{name}", tracking_uri, experiment),
                task=name,
                plan=plan,
                params=kwargs_of(given),
                tags=tags or {},
                data=data,
            )
            observers.append(stack.enter_context(record))
        if not isinstance(progress, bool):
            observers.append(progress)
        elif progress:
            from lrsearch.report.progress import SweepProgress

            observers.append(shown.enter_context(SweepProgress(plan.repeats)))
        curves = tuple(sweep(subject, plan, chosen, Observers(*observers)))
        shown.close()
        suggestion = combine([suggest(curve) for curve in curves])
        if isinstance(subject, ModelInUse):
            suggestion = suggestion.with_groups(subject.ratios)
        if record is not None:
            record.finish(curves, suggestion)
    if record is None:
        return RangeTest(curves, suggestion, task=name)
    return RangeTest(
        curves, suggestion, task=name, folder=record.folder, mirror=record.mirror, key=record.key
    )


def _subject(
    model: nn.Module | Task | TrainFunction,
    optimizer: Optimizer | None,
    loss: LossFunction | None,
    train_loader: Iterable[Any] | None,
    step: StepFunction | None,
    keep: Keep,
) -> ModelInUse | FromTask | CustomLoop:
    if isinstance(model, Task) or is_train_function(model):
        given = {"optimizer": optimizer, "loss": loss, "train_loader": train_loader, "step": step}
        for argument, value in given.items():
            if value is not None:
                owner = "a Task" if isinstance(model, Task) else "a training function"
                raise InputError(
                    argument, value, f"is given beside {owner}, which has its own", "leave it out"
                )
        return FromTask(model) if isinstance(model, Task) else CustomLoop(model)
    if optimizer is None:
        raise InputError(
            "optimizer", None, "is missing", "hand over model, optimizer, loss and train_loader, or a Task"
        )
    if train_loader is None:
        raise InputError("train_loader", None, "is missing", "hand over a DataLoader")
    return ModelInUse(model, optimizer, loss, train_loader, step, keep)  # type: ignore[arg-type]  # its check tells
