"""The sweep: a training under a sweep schedule, once a seed, with everything put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from lrsearch.core.curve import RangeTestCurve
from lrsearch.core.observer import Observer
from lrsearch.core.stopping import make_stop_rule
from lrsearch.core.sweep_plan import SweepPlan
from lrsearch.errors import InputError
from lrsearch.schedules import Sweep
from lrsearch.schedules.sweep import sweep_lrs
from lrsearch.training.custom_loop import CustomLoop
from lrsearch.training.subjects import FIRST_STEPS, FromTask, ModelInUse, SweepOrder
from lrsearch.training.untrained import say_passed_over, say_raised


def sweep(
    subject: ModelInUse | FromTask | CustomLoop,
    plan: SweepPlan,
    device: torch.device,
    observer: Observer,
) -> Iterator[RangeTestCurve]:
    """Sweeps the lr once a seed, and yields each seed's curve; `device` is what the subject's `check`
    returned.

    The lr is the one that a task's optimizer is made with, or `trial.lr`; of a model in use it is that of the
    optimizer's group 0. All groups keep their ratios to it, but for those of a task that do not follow it
    (`FromTask.look`). Seeds are ``plan.seed … plan.seed + plan.repeats - 1``. Raises InputError for anything
    that cannot be trained, before the first update; what the model, the loss or the loader raise later passes
    through, with a note of the step. What the subject owns and all random generators are put back bit for bit
    in every case.
    """
    for seed in plan.seeds:
        yield _sweep_once(subject, plan, seed, device, observer)


def _sweep_once(
    subject: ModelInUse | FromTask | CustomLoop,
    plan: SweepPlan,
    seed: int,
    device: torch.device,
    observer: Observer,
) -> RangeTestCurve:
    schedule = Sweep(min_lr=plan.min_lr, max_lr=plan.max_lr, spacing=plan.spacing)
    steps = subject.steps(plan)
    lrs = sweep_lrs(plan.min_lr, plan.max_lr, steps, plan.spacing)
    losses: list[float] = []
    recorded: list[int] = []  # the steps of the losses: those of batches that are passed over are missing
    stop = make_stop_rule(plan.stop, lrs, plan.smoothing, plan.divergence)

    def begin(model_info: Mapping[str, Any]) -> None:
        observer.sweep_begins(seed, steps, model_info)

    def observe(step: int, _lr: float, loss: float) -> str | None:  # the optimizer's may have another unit
        losses.append(loss)
        recorded.append(step)
        observer.sweep_step(seed, step, float(lrs[step - 1]), loss)
        return stop(loss)

    try:
        outcome = subject.run(SweepOrder(plan, schedule, seed, device, begin, observe))
    except BaseException as error:
        _place(error, len(losses), seed)
        raise
    if outcome.error is not None and outcome.steps < FIRST_STEPS:
        _place(outcome.error, outcome.steps, seed)
        raise outcome.error  # no divergence so early
    reached = outcome.stopped_at or (recorded[-1] if recorded else 0)
    missing = sorted({*range(1, reached)} - {*recorded})
    notes = [say_passed_over(outcome.passed_over)]
    if outcome.error is not None:
        notes.append(say_raised(outcome.error))
    return RangeTestCurve(
        lrs=np.delete(lrs, np.array(missing, dtype=np.intp) - 1),
        losses=np.array(losses),
        seed=seed,
        smoothing=plan.smoothing,
        stopped_at=None if outcome.stopped_at is None else outcome.stopped_at - len(missing),
        stop_reason=outcome.reason,
        notes=tuple(note for note in notes if note is not None),
        divergence=plan.divergence,
    )


def _place(error: BaseException, steps: int, seed: int) -> None:
    """Note where an error was raised."""
    if not isinstance(error, InputError):
        error.add_note(f"in the range test, after {steps} steps with seed {seed}")
