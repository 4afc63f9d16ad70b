"""Runs a trial: a task trained, validated and watched, or a training function that does so itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrsearch.core.divergence import Divergence, DivergenceRule
from lrsearch.core.trial import Direction, TrialResult, TrialSpec
from lrsearch.errors import InputError, LrsearchError, RecordError, StopTrial, first_line
from lrsearch.files import whole_file
from lrsearch.schedules import schedule_from_dict
from lrsearch.training.averaging import averaging
from lrsearch.training.batches import repeats_passes
from lrsearch.training.checkpoint import Checkpoints, TrialCheckpoints
from lrsearch.training.compilation import compiled, terms
from lrsearch.training.data import check_batches
from lrsearch.training.loaders import is_one_shot, seed_loaders
from lrsearch.training.loop import Observe, Validated, fit
from lrsearch.training.optimizers import eval_mode, evaluating, group_lrs, train_mode
from lrsearch.training.random_state import preserve_random_state, seed_everything
from lrsearch.training.snapshot import strided_parts
from lrsearch.training.task import Task, check_parts, steps_per_epoch
from lrsearch.training.tensor_store import write_tensors
from lrsearch.training.trial import TrainFunction, Trial
from lrsearch.training.trial_log import TrialLog
from lrsearch.training.untrained import (
    has_finite_weights,
    may_be_divergence,
    rebuilt,
    say_passed_over,
    speaks_of_numbers,
)
from lrsearch.training.update import NotFiniteError, Training
from lrsearch.training.validation import validate

_AT_STARTS_ONLY = "where the training loader starts again, and nowhere else"
"""Where checkpoints are made of a training whose loader does not repeat its passes."""


class TrialObserver(Protocol):
    """Hears of a trial as it goes on."""

    def begin(self, model_info: Mapping[str, Any]) -> None:
        """The first update is about to be made; `model_info` say what is trained."""

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """What is to be kept of the state after `step` updates."""


def run_trial(
    subject: Task | TrainFunction,
    spec: TrialSpec,
    device: torch.device,
    observer: TrialObserver,
    *,
    objective: str,
    direction: Direction = "minimize",
    divergence: Divergence = "auto",
    weights: Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrialResult:
    """Trains once, as `spec` says, and tells how it went; the same again gives the same numbers.

    A task is validated before the first update, at every epoch's end (or every `val_every` updates) and
    after the last update. Recorded are ``train/loss`` and ``lr`` by step, and ``val/loss``, ``val/<metric>``
    and ``epoch`` at validations. A trial that completes leaves its state_dict at `weights`; a training
    function keeps its weights to itself.
    Random states, also the loaders' own, are put back. A task's trial that has `checkpoints` goes on from the
    newest, with the same numbers as if it had never stopped; a training function always begins anew.

    A batch whose loss is not finite on the untrained model either is passed over, and said. What the subject
    raises makes a failed trial; where the untrained model does not raise it, it is a divergence. Raises
    InputError for what cannot be trained at all, and RecordError where the weights or a checkpoint cannot be
    written, or a checkpoint does not fit the task.
    """
    rule = DivergenceRule(spec.steps)
    if not isinstance(subject, Task):
        trial = Trial(
            spec,
            device,
            record=observer.record,
            monitor=rule,
            objective=objective,
            direction=direction,
            divergence=divergence,
        )
        return _run_function(subject, trial, observer)
    log = TrialLog(spec, observer.record, rule, objective, direction, divergence)
    return _run_task(subject, log, rule, device, observer, weights, checkpoints)


def evaluate(task: Task, weights: Path, device: torch.device) -> dict[str, float]:
    """``test/loss`` and ``test/<metric>`` of the weights that a trial left, on the task's test loader.

    Raises InputError where the task has none, RecordError where the weights cannot be read.
    """
    if task.test_loader is None:
        raise InputError("test_loader", None, "is missing", "hand over Task(..., test_loader=...)")
    with task.preserve((task.test_loader,)):
        seed_everything(0)
        seed_loaders((task.test_loader,), 0)
        model = task.build_model(device)
        try:
            model.load_state_dict(torch.load(weights, map_location=device, weights_only=True))
        except Exception as error:
            raise RecordError(f"cannot read the weights in {weights}: {first_line(error)}") from error
        return validate(task, model, task.test_loader, device, part="test", seed=0)


def check_repeatable(task: Task, seed: int, device: torch.device) -> None:
    """Raises InputError where two models from one seed differ, or are the same that is trained on."""
    models = []
    with task.preserve():
        for _ in range(2):
            seed_everything(seed)
            models.append(task.build_model(device))
    first, second = models
    trained = {id(p) for p in first.parameters() if p.requires_grad}
    if any(id(p) in trained for p in second.parameters()):
        raise InputError(
            "Task.model",
            task.model,
            "returns the weights that were trained before",
            "make a new model at each call, e.g. with copy.deepcopy",
        )
    differing = _first_difference(first.state_dict(), second.state_dict())
    if differing is not None:
        raise InputError(
            "Task.model",
            task.model,
            f"makes another model each time from one seed ({differing!r} differs)",
            "draw its random numbers from torch, numpy or random, which are seeded before each call",
        )


def _run_task(
    subject: Task,
    log: TrialLog,
    rule: DivergenceRule,
    device: torch.device,
    observer: TrialObserver,
    weights: Path | None,
    files: Checkpoints | None,
) -> TrialResult:
    task = _with_optimizer(subject, log.spec.optimizer)
    _check_loaders(task)
    checkpoints = None if files is None else TrialCheckpoints(files, log, rule, _loaders(task))
    with task.preserve(_loaders(task)):
        try:
            model = _train(task, device, observer, log, checkpoints)
        except NotFiniteError:
            log.stop(1, "not_finite")
            return log.result()
        except LrsearchError:
            raise
        except Exception as error:
            if files is not None:
                files.stop_if_asked()  # the signal may have ended a worker process, too: that is no failure
            return log.result(error)
    if files is not None and log.stopped == "raised":
        files.stop_if_asked()
    result = log.result()
    if weights is not None and result.status == "complete":
        _save(model, weights)
    return result


def _train(
    task: Task,
    device: torch.device,
    observer: TrialObserver,
    log: TrialLog,
    checkpoints: TrialCheckpoints | None,
) -> nn.Module:
    spec = log.spec
    schedule = schedule_from_dict(spec.schedule)
    epoch = steps_per_epoch(task)
    seed_everything(spec.seed)
    seed_loaders(_loaders(task), spec.seed)
    model, optimizer = task.build(spec.lr, device)
    check_parts(model, task.loss, optimizer)
    if not model.training:
        model.train()
    train_mode(optimizer)
    averaged = None if task.ema is None else averaging(model, optimizer, task.ema)
    judged = model if averaged is None else averaged.module
    compiled(model, task, device)
    observe = _in_units_of(spec.lr, optimizer, log)
    training = Training(
        model,
        optimizer,
        task.train_loader,
        task.loss,
        task.step,
        task.accumulate,
        task.clip,
        task.precision,
        device,
        seed=spec.seed,
        untrained=rebuilt(partial(task.build_model, device), spec.seed),
        averaged=averaged,
    )
    model_info = {**training.model_info(), **terms(task, device)}
    if checkpoints is not None and not repeats_passes(task.train_loader):
        model_info["checkpoints"] = _AT_STARTS_ONLY
    observer.begin(model_info)

    def validated(step: int) -> Validated:
        if task.val_loader is None:
            return Validated(log.objective, log.stopped)
        try:
            with evaluating(optimizer):
                values = validate(task, judged, task.val_loader, device, part="val", seed=spec.seed)
        except Exception as error:
            failed = speaks_of_numbers(error) or not has_finite_weights(model)
            if step == 0 or not (failed and may_be_divergence(error)):
                raise  # what the untrained model took may still come of the data or the program
            log.stop(step, "raised", error)
        else:
            _check_untrained(step, values, log)
            log.add(step, values, {} if epoch is None else {"epoch": step / epoch})
        return Validated(log.objective, log.stopped)

    if checkpoints is None or not checkpoints.resumes:
        validated(0)
    try:
        outcome = fit(
            training,
            schedule,
            spec.steps,
            observe,
            steps_per_epoch=epoch,
            at_epoch_end=validated,
            validate_every=task.val_every,
            checkpoints=checkpoints,
        )
    finally:
        log.bad_data = say_passed_over(training.passed_over)
    if outcome.stopped_at is not None and outcome.reason is not None and log.stopped is None:
        log.stop(outcome.stopped_at, outcome.reason, outcome.error)
    elif not has_finite_weights(model):
        log.stop(outcome.steps, "not_finite")
    eval_mode(optimizer)
    return judged


def _check_untrained(step: int, values: Mapping[str, float], log: TrialLog) -> None:
    """Raise InputError where the untrained loss is NaN: no training mends that, as it may mend a metric."""
    if step == 0 and log.objective_name == "val/loss" and math.isnan(values["val/loss"]):
        raise InputError(
            "val_loader",
            math.nan,
            "val/loss of the untrained model is NaN",
            "look for NaN or infinity in the validation data, and for batches without a target",
        )


def _in_units_of(lr: float, optimizer: Optimizer, log: TrialLog) -> Observe:
    """Records the lr in units of the one that the optimizer was just made with, whatever its group 0 has."""
    scale = lr / group_lrs(optimizer)[0]
    if scale == 1.0:
        return log.add_update
    return lambda step, of_group, loss: log.add_update(step, scale * of_group, loss)


def _run_function(train: TrainFunction, trial: Trial, observer: TrialObserver) -> TrialResult:
    spec = trial.spec
    if spec.optimizer is not None:
        raise InputError(
            "optimizer", spec.optimizer, "is the business of your training function", "leave it out"
        )
    observer.begin({"device": str(trial.device)})
    with preserve_random_state(), trial.schedule.counted():
        seed_everything(spec.seed)
        try:
            train(trial)
        except StopTrial:
            pass  # the trial knows why it stopped
        except LrsearchError:
            raise
        except Exception as error:
            if speaks_of_numbers(error):
                trial.raised(error)
            return trial.result(error)
    return trial.result()


def _with_optimizer(task: Task, name: str | None) -> Task:
    if name is None:
        return task
    if name != "adam":
        raise InputError("optimizer", name, "is no baseline", "give 'adam', or None for the task's own")
    return replace(task, optimizer=_adam)


def _adam(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
    return torch.optim.Adam(parameters, lr=lr)


def _check_loaders(task: Task) -> None:
    check_batches(task.train_loader)
    if task.val_loader is not None and not isinstance(task.val_loader, Iterable):
        raise InputError("val_loader", task.val_loader, "is not iterable", "hand over a DataLoader")
    for name in ("train_loader", "val_loader"):
        loader = getattr(task, name)
        if is_one_shot(loader):
            raise InputError(
                name, loader, "is a generator, which can be read once only", "hand over a DataLoader"
            )


def _loaders(task: Task) -> list[object]:
    return [loader for loader in (task.train_loader, task.val_loader) if loader is not None]


def _save(model: nn.Module, path: Path) -> None:
    state = {
        name: value.detach().cpu() if isinstance(value, Tensor) else value
        for name, value in model.state_dict().items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            write_tensors(state, file)
    except (OSError, RuntimeError) as error:
        raise RecordError(f"cannot write the weights to {path}: {first_line(error)}") from error


def _first_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """The first tensor in which two state_dicts differ."""
    for name in {**first, **second}:
        if name not in first or name not in second or not _same(first[name], second[name]):
            return name
    return None


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return True
    parts, others = strided_parts(one), strided_parts(other)
    return (
        (one.layout, one.dtype, len(parts)) == (other.layout, other.dtype, len(others))
        and all(p.shape == o.shape and p.dtype == o.dtype for p, o in zip(parts, others, strict=True))
        and all(bool(((p == o) | (p.isnan() & o.isnan())).all()) for p, o in zip(parts, others, strict=True))
    )
