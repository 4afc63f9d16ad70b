"""What the user hands over: a `Task`, or a model with its optimizer, loss and loader."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, SupportsFloat

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrsearch.core.sweep_plan import Precision, TrainingSettings, validated
from lrsearch.core.trial import check_name
from lrsearch.errors import InputError, a_kind_of
from lrsearch.training.data import batch_count, split_batch
from lrsearch.training.metrics import Metric, MetricObject, Whole
from lrsearch.training.optimizers import group_lrs
from lrsearch.training.random_state import preserve_random_state
from lrsearch.training.snapshot import check_initialised, preserve_state

Batch = Any
LossFunction = Callable[..., Tensor]
StepFunction = Callable[[nn.Module, Batch], Tensor]
RowsFunction = Callable[[Batch], SupportsFloat]


@dataclass(frozen=True)
class Task:
    """Everything that a training needs, made afresh for every seed.

    Parameters
    ----------
    model : callable
        ``model()`` returns a new ``nn.Module``.
    optimizer : callable
        ``optimizer(parameters, lr)`` returns an optimizer of these parameters; where its first argument is
        called ``model``, it is handed the model. A param group whose lr does not follow `lr` keeps its own,
        and is named in a warning.
    train_loader : iterable
        The training batches, usually a ``DataLoader``.
    loss : callable, optional
        ``loss(outputs, targets)`` returns a scalar tensor. Without it (and without `step`) the model returns
        the loss.
    val_loader, test_loader : iterable, optional
        The batches to validate and to test on. The test data are read at the
        end, with the weights of the winner and of the best constant lr.
    metrics : mapping of str to callable or object
        ``metric(outputs, targets)``, a number whose mean over the batches is taken;
        ``lrsearch.whole(function)``, a function of all outputs and targets; or an object with ``update``,
        ``compute`` and ``reset``, such as a ``torchmetrics.Metric``. They need `loss`, and neither `step` nor
        `val_step`.
    step : callable, optional
        ``step(model, batch)`` returns the loss instead of `loss`, for batches that are anything but
        ``(inputs, targets)``.
    val_step : callable, optional
        ``val_step(model, batch)`` returns the validation loss instead of `loss` or `step`, where that needs
        gradients (which it has) or train mode (it may call ``model.train()``). Buffers, modes and gradients
        are put back afterwards.
    rows : callable, optional
        ``rows(batch)`` returns the weight of a batch in a mean over batches, see below.
    accumulate : int
        The number of batches that make one update, whose loss is their mean. An epoch then has as many
        updates as whole groups of batches; what is left of them goes into the next epoch's first update.
    clip : float, optional
        The largest norm of the gradient, as ``torch.nn.utils.clip_grad_norm_`` takes it.
    precision : {"32", "16", "bf16"}
        The precision of the forward pass, also in validation: ``bf16`` and ``16`` are autocast, ``16`` with a
        GradScaler, on a GPU. An update that the scaler skips is no step. Metrics are given float32.
    val_every : int, optional
        The number of updates between validations; by default they are made where an epoch ends.
    epochs, steps : int, optional
        The length of a full training, where neither ``search(…)`` nor its plan says it.
    ema : float, optional
        The decay, such as 0.999, of an exponential average of weights and buffers after every update: the
        averaged model (torch's ``AveragedModel``) is validated, tested and kept; the range test has no use
        for it.
    compile : bool or mapping
        Whether the model is trained compiled, or the arguments of ``torch.compile``. Where no compiler is
        found it is trained as it is, which is said.
    name : str, optional
        The task's name on record; by default that of the function that made it.
    arguments : mapping of str to object
        The task's own settings, which are recorded as params.

    Raises
    ------
    InputError
        For a part that is not callable, a model that is not made by a function, and metrics that cannot be
        computed.

    Notes
    -----
    Validation is done in eval mode and without gradients, except in `val_step`.

    In a mean over batches a batch weighs as much as it has targets: the elements of its target (of labels,
    those that are not the loss's ``ignore_index``, -100 if it has none), ``num_graphs`` of a batch of graphs,
    and without a target the length of its first tensor. `rows` overrides this.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> import lrsearch
    >>> data = TensorDataset(torch.randn(64, 4), torch.randint(2, (64,)))
    >>> task = lrsearch.Task(
    ...     model=lambda: nn.Linear(4, 2),
    ...     optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    ...     loss=nn.CrossEntropyLoss(),
    ...     train_loader=DataLoader(data, batch_size=8, shuffle=True),
    ...     val_loader=DataLoader(data, batch_size=64),
    ...     metrics={"accuracy": lambda outputs, targets: (outputs.argmax(1) == targets).float().mean()},
    ... )
    >>> model, optimizer = task.build(0.1, torch.device("cpu"))
    >>> optimizer.param_groups[0]["lr"]
    0.1
    >>> lrsearch.Task(model=nn.Linear(4, 2), optimizer=task.optimizer, train_loader=[])
    Traceback (most recent call last):
    lrsearch.errors.InputError: Task.model=Linear(...): is not a function; hand over a function that ...
    """

    model: Callable[[], nn.Module]
    optimizer: Callable[[Any, float], Optimizer]
    train_loader: Iterable[Batch]
    loss: LossFunction | None = None
    val_loader: Iterable[Batch] | None = None
    test_loader: Iterable[Batch] | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    step: StepFunction | None = None
    val_step: StepFunction | None = None
    rows: RowsFunction | None = None
    accumulate: int = 1
    clip: float | None = None
    precision: Precision = "32"
    val_every: int | None = None
    epochs: int | None = None
    steps: int | None = None
    ema: float | None = None
    compile: bool | Mapping[str, Any] = False
    name: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("model", "optimizer"):
            if not callable(getattr(self, name)) or isinstance(getattr(self, name), nn.Module):
                raise InputError(
                    f"Task.{name}",
                    getattr(self, name),
                    "is not a function",
                    "hand over a function that makes a new one, such as lambda: make_model()",
                )
        check_loss(self.loss, self.step)
        if self.val_step is not None and not callable(self.val_step):
            raise InputError(
                "val_step", self.val_step, "is not callable", "hand over val_step(model, batch) -> loss"
            )
        if self.rows is not None and not callable(self.rows):
            raise InputError("rows", self.rows, "is not callable", "hand over rows(batch) -> int")
        for name, value in self.settings.model_dump().items():
            object.__setattr__(self, name, value)
        if self.val_every is not None and self.val_loader is None:
            raise InputError(
                "val_every", self.val_every, "is given without a val_loader", "hand one over, or leave it out"
            )
        self._check_metrics()

    @property
    def settings(self) -> TrainingSettings:
        """What is said of the training beside its parts."""
        return validated(
            TrainingSettings, **{name: getattr(self, name) for name in TrainingSettings.model_fields}
        )

    def build(self, lr: float, device: torch.device) -> tuple[nn.Module, Optimizer]:
        """Make the model and its optimizer.

        Parameters
        ----------
        lr : float
            The peak learning rate.
        device : torch.device
            Where the model is put.

        Returns
        -------
        model : nn.Module
            The model on `device`.
        optimizer : torch.optim.Optimizer
            Its optimizer.
        """
        model = self.build_model(device)
        return model, self.make_optimizer(model, lr)

    def make_optimizer(self, model: nn.Module, lr: float) -> Optimizer:
        """Make the optimizer of a model that there is.

        Parameters
        ----------
        model : nn.Module
            The model.
        lr : float
            The peak learning rate.

        Returns
        -------
        torch.optim.Optimizer
            Its optimizer.
        """
        return self.optimizer(model if _takes_model(self.optimizer) else model.parameters(), lr)

    def build_model(self, device: torch.device) -> nn.Module:
        """Make the model on a device; a loss that is a module is moved there too, see `preserve`.

        Parameters
        ----------
        device : torch.device
            Where the model is put.

        Returns
        -------
        nn.Module
            The model.

        Raises
        ------
        InputError
            For something else than an ``nn.Module``, and for a lazy module that has not seen its first batch.
        """
        model = self.model()
        if not isinstance(model, nn.Module):
            raise InputError("Task.model", self.model, f"returned {a_kind_of(model)}", "return an nn.Module")
        check_initialised(model)
        if isinstance(self.loss, nn.Module):
            self.loss.to(device)
        return model.to(device)

    def preserve(self, loaders: Iterable[object] = ()) -> AbstractContextManager[object]:
        """Put random states, loaders and a loss that is a module back on leaving.

        Parameters
        ----------
        loaders : iterable
            The loaders whose random states are put back.

        Returns
        -------
        context manager
            To be entered with ``with``.
        """
        if isinstance(self.loss, nn.Module):
            return preserve_state(self.loss, loaders=loaders)
        return preserve_random_state(loaders)

    def _check_metrics(self) -> None:
        if self.metrics and (self.loss is None or self.step is not None or self.val_step is not None):
            raise InputError(
                "Task.metrics",
                list(self.metrics),
                "need the outputs and the targets, which only loss(outputs, targets) takes",
                "hand over loss and neither step nor val_step, or leave the metrics out",
            )
        for name, metric in self.metrics.items():
            check_name("Task.metrics", name)
            known = isinstance(metric, (MetricObject, Whole))
            if isinstance(metric, type) if known else not callable(metric):
                raise InputError(
                    f"Task.metrics[{name!r}]",
                    metric,
                    "is a class" if known else "is not callable",
                    "make an object of it" if known else "hand over metric(outputs, targets)",
                )
        if "loss" in self.metrics:
            raise InputError("Task.metrics", "loss", "is the loss's own name", "choose another name")


def _takes_model(optimizer: Callable[..., Optimizer]) -> bool:
    """Whether the first argument of a task's `optimizer` is called ``model``."""
    try:
        return next(iter(inspect.signature(optimizer).parameters), None) == "model"
    except (TypeError, ValueError):  # of no function in Python
        return False


class Forward(NamedTuple):
    """What a batch gave: its loss; outputs and targets only where ``loss(outputs, targets)`` made it."""

    loss: Tensor
    outputs: Any = None
    targets: Any = None


def forward(model: nn.Module, loss: LossFunction | None, step: StepFunction | None, batch: Batch) -> Forward:
    """One batch through the model: `step` gives the loss where there is one, else `loss`, else the model."""
    if step is not None:
        return Forward(step(model, batch))
    if loss is None:
        outputs = model(**batch) if isinstance(batch, Mapping) else model(batch)
        return Forward(outputs.loss if hasattr(outputs, "loss") else outputs)
    inputs, named, targets = split_batch(batch)
    outputs = model(*inputs, **named)
    return Forward(loss(outputs, targets), outputs, targets)


def steps_per_epoch(task: Task) -> int | None:
    """Updates an epoch of a task's training, at least one, or None where its loader does not know."""
    batches = batch_count(task.train_loader)
    return None if batches is None else max(batches // task.accumulate, 1)


def check_loss(loss: object, step: object) -> None:
    """Raises InputError where neither or no callable loss is given."""
    if step is not None and not callable(step):
        raise InputError("step", step, "is not callable", "hand over step(model, batch) -> loss")
    if step is None and loss is not None and not callable(loss):
        raise InputError(
            "loss", loss, "is not callable", "hand over loss(outputs, targets), e.g. nn.CrossEntropyLoss()"
        )


def check_parts(model: object, loss: object, optimizer: object) -> None:
    """Raises InputError where the optimizer does not train this model (and, where it is a module, this
    loss).
    """
    if not isinstance(model, nn.Module):
        raise InputError("model", model, "is not an nn.Module", "hand over a torch.nn.Module")
    if not isinstance(optimizer, Optimizer):
        raise InputError(
            "optimizer",
            optimizer,
            "is not a torch optimizer",
            "hand over e.g. torch.optim.SGD(model.parameters(), lr=0.1)",
        )
    modules = [module for module in (model, loss) if isinstance(module, nn.Module)]
    for module in modules:
        check_initialised(module)
    parameters = {id(p) for module in modules for p in module.parameters()}
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    foreign = sum(id(p) not in parameters for p in trained)
    if foreign:
        raise InputError(
            "optimizer",
            type(optimizer).__name__,
            f"{foreign} of its {len(trained)} parameters are not the model's",
            "build it from model.parameters()",
        )
    if not any(p.requires_grad for p in trained):
        raise InputError(
            "model",
            type(model).__name__,
            "no parameter of the optimizer requires a gradient",
            "unfreeze the layers to train with requires_grad_(True)",
        )
    if any("initial_lr" in group for group in optimizer.param_groups) or hasattr(
        optimizer.step, "_wrapped_by_lr_sched"
    ):
        raise InputError(
            "optimizer",
            type(optimizer).__name__,
            "an lr scheduler is attached to it, which would move the lr during the sweep",
            "run the range test before building the scheduler, or on a fresh optimizer",
        )
    if group_lrs(optimizer)[0] <= 0:
        raise InputError(
            "optimizer",
            type(optimizer).__name__,
            "the lr of its first group is 0, so the ratios of the groups are unknown",
            "give it a positive lr",
        )


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, else the accelerator that torch finds, else the CPU."""
    if device is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError("device", device, reason, "use cpu, or a device that torch sees here") from error
    return chosen


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter lies; the CPU for a model without any."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def follow(loss: object, device: torch.device) -> None:
    """Move a loss that is a module from the CPU to the model's device; from elsewhere it is not moved."""
    if isinstance(loss, nn.Module) and any(
        tensor.device.type == "cpu" for tensor in chain(loss.parameters(), loss.buffers())
    ):
        loss.to(device)
