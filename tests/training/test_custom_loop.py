"""Loops of one's own as people write them: what a sweep makes of their counting, optimizers and reports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lrsearch
from lrsearch.core.observer import Observer
from lrsearch.errors import InputError
from lrsearch.training.trial import Trial
from tests.training.tasks import make_spec, run

Optimizers = Callable[[float], list[torch.optim.Optimizer]]


class Lrs(Observer):
    """Keeps the lrs that a sweep tells."""

    def __init__(self) -> None:
        self.told: list[float] = []

    def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:
        """Keep it."""
        self.told.append(lr)


def sgd(*lrs: float) -> torch.optim.SGD:
    """An optimizer of so many parameters, each with its lr."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    made = torch.optim.SGD(groups)
    for group in made.param_groups:
        group["params"][0].grad = torch.ones(1)
    return made


class Loop:
    """Trains nothing but its lrs: `had` has those of every optimizer's groups at every update."""

    def __init__(
        self, optimizers: Optimizers = lambda lr: [sgd(lr)], *, built_for: Callable[[int], int] = lambda n: n
    ) -> None:
        self.had: list[list[float]] = []
        self._optimizers = optimizers
        self._built_for = built_for

    def updates(self, trial: Trial) -> int:
        """How many it makes."""
        return trial.steps

    def __call__(self, trial: Trial) -> None:
        optimizers = self._optimizers(trial.lr)
        schedulers = [trial.schedule.build(o, self._built_for(trial.steps)) for o in optimizers]
        self.had.clear()
        for step in range(1, self.updates(trial) + 1):
            self.had.append([group["lr"] for o in optimizers for group in o.param_groups])
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                scheduler.step()
            trial.report(step, train_loss=1.0)
        trial.report(self.updates(trial), val_loss=1.0 + trial.lr)


class WholeEpochs(Loop):
    """Trains as many whole epochs of 70 updates as fit."""

    def __init__(self) -> None:
        super().__init__(built_for=lambda steps: max(1, steps // 70) * 70)

    def updates(self, trial: Trial) -> int:
        return self._built_for(trial.steps)


def swept(train: Any, steps: int = 200) -> list[float]:
    """The lrs that a sweep tells of this loop."""
    heard = Lrs()
    lrsearch.range_test(
        train, steps=steps, min_lr=1e-5, max_lr=1.0, stop="none", tracking=False, progress=heard
    )
    return heard.told


@pytest.mark.parametrize(
    ("loop", "steps"),
    [
        (WholeEpochs(), 140),
        (Loop(built_for=lambda steps: steps // 2), 100),
        (Loop(built_for=lambda steps: 2 * steps), 200),
        (Loop(built_for=lambda steps: 1000), 200),
    ],
    ids=["whole epochs", "half", "twice", "a fixed number"],
)
def test_a_sweep_has_the_lrs_that_it_tells_whatever_the_loop_counts(loop: Loop, steps: int) -> None:
    told = swept(loop)
    assert [lr for (lr,) in loop.had] == pytest.approx(told)
    assert told == pytest.approx(np.geomspace(1e-5, 1.0, steps).tolist())


@pytest.mark.filterwarnings("ignore:the lr that the training function gives")
@pytest.mark.parametrize(
    "lrs",
    [
        lambda lr: [[lr], [0.1]],
        lambda lr: [[0.1], [lr]],
        lambda lr: [[5 * lr**2], [lr]],
        lambda lr: [[5 * lr**2], [lr, 0.3 * lr]],
        lambda lr: [[lr], [0.01, 2 * lr], [lr / 64]],
    ],
    ids=["second fixed", "first fixed", "first squared", "other groups", "three"],
)
def test_every_optimizer_is_swept_at_the_lrs_that_a_training_at_that_lr_gives_it(
    lrs: Callable[[float], list[list[float]]],
) -> None:
    loop = Loop(lambda lr: [sgd(*of_one) for of_one in lrs(lr)])
    told = swept(loop)
    expected = [[of_group for of_one in lrs(lr) for of_group in of_one] for lr in told]
    np.testing.assert_allclose(loop.had, expected, rtol=1e-6)


def test_several_optimizers_that_follow_the_lr_are_swept_alike() -> None:
    loop = Loop(lambda lr: [sgd(lr), sgd(0.1 * lr)])
    told = swept(loop)
    np.testing.assert_allclose(loop.had, [[lr, 0.1 * lr] for lr in told], rtol=1e-6)


def built_twice(trial: Trial) -> None:
    optimizer = sgd(trial.lr)
    trial.schedule.build(optimizer, trial.steps)
    trial.schedule.build(optimizer, trial.steps)


def built_late(trial: Trial) -> None:
    optimizer = sgd(trial.lr)
    for _ in range(7):
        optimizer.step()
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps + 1):
        optimizer.step()
        scheduler.step()
        trial.report(step, train_loss=1.0)


def built_in_the_middle(trial: Trial) -> None:
    optimizer = sgd(trial.lr)
    for step in range(1, trial.steps + 1):
        if step == 5:
            scheduler = trial.schedule.build(optimizer, trial.steps)
        optimizer.step()
        if step >= 5:
            scheduler.step()
        trial.report(step, train_loss=1.0)


def reported_before_the_update(trial: Trial) -> None:
    optimizer = sgd(trial.lr)
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps + 1):
        trial.report(step, train_loss=1.0)
        optimizer.step()
        scheduler.step()


def reported_by_batch(trial: Trial) -> None:
    optimizer = sgd(trial.lr)
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for batch in range(1, trial.steps + 1):
        if batch % 4 == 0:
            optimizer.step()
            scheduler.step()
        trial.report(batch, train_loss=1.0)


def only_validated(trial: Trial) -> None:
    optimizer = sgd(trial.lr)
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps + 1):
        optimizer.step()
        scheduler.step()
        trial.report(step, val_loss=1.0, loss=1.0)


def groups_by_lr(trial: Trial) -> None:
    trial.schedule.build(sgd(*[trial.lr] * (1 if trial.lr < 0.5 else 2)), trial.steps)


async def waits(trial: Trial) -> None:
    Loop()(trial)


def yields(trial: Trial) -> Any:
    yield trial.lr


def returns_nothing(*arguments: Any) -> None:
    """A decorator hides what it takes, and swallows what it raises."""


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize(
    ("train", "said"),
    [
        (built_twice, "is built twice on one SGD, whose lr would be scheduled twice; build it once on each"),
        (built_late, "built the trial's schedule after 7 updates of its optimizer"),
        (built_in_the_middle, "build it before the first update"),
        (reported_before_the_update, "report once an update, after optimizer.step()"),
        (reported_by_batch, "report once an update, after optimizer.step()"),
        (only_validated, "never reported a training loss; call trial.report(step, train_loss=loss)"),
        (groups_by_lr, "schedules 1 param groups at trial.lr 1e-05 and 2 at 1; make the same groups"),
        (waits, "is a coroutine function: a call does not run it; hand over a plain function"),
        (yields, "is a generator function: a call does not run it; hand over a plain function"),
        (Loop, "is a class; hand over an object of it"),
        (
            returns_nothing,
            "returned None when it was called without arguments; return an lrsearch.Task; a tr",
        ),
    ],
)
def test_a_loop_that_cannot_be_swept_is_told_why_in_a_line(train: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        swept(train, 60)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_default_makes_no_task_of_a_training_function() -> None:
    loop = Loop()

    def train(trial: Any = None) -> None:
        loop(trial)

    assert len(swept(train, 60)) == 60


def test_a_step_may_be_a_whole_number_of_any_kind() -> None:
    def train(trial: Trial) -> None:
        trial.report(np.int64(1), train_loss=1.0, val_loss=1.0)

    result, heard = run(train, make_spec(steps=1))
    assert result.steps_done == 1
    assert heard.points[0][0] == 1


def test_updates_of_an_optimizer_that_is_gone_are_not_those_of_the_next() -> None:
    """Which may well lie where it lay."""

    def train(trial: Trial) -> None:
        for _ in range(50):
            sgd(trial.lr).step()
        Loop()(trial)

    result, _ = run(train, make_spec(steps=20))
    assert result.warnings == ()


def test_a_schedule_of_another_length_is_said_of_a_trial() -> None:
    result, _ = run(Loop(built_for=lambda steps: 2 * steps), make_spec(steps=40, name="linear"))
    assert result.warnings == ("it built the trial's schedule for 80 updates, and trial.steps is 40",)


def test_an_optimizer_off_its_schedule_is_said_though_another_is_on_it() -> None:
    class Forgetful(Loop):
        def __call__(self, trial: Trial) -> None:
            first, second = sgd(trial.lr), sgd(trial.lr)
            scheduler = trial.schedule.build(first, trial.steps)
            trial.schedule.build(second, trial.steps)
            for step in range(1, trial.steps + 1):
                first.step()
                second.step()
                scheduler.step()
                trial.report(step, train_loss=1.0, val_loss=1.0)

    result, _ = run(Forgetful(), make_spec(lr=0.1, steps=40, name="linear"))
    assert result.warnings == ("at step 2 the lr was 0.1, not the schedule's 0.0975",)


def test_a_look_at_a_loop_ends_no_other_training() -> None:
    """A loop is looked at up to its first update; other threads go on with theirs."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def elsewhere() -> None:
        optimizer = sgd(0.1)
        try:
            while not stop.is_set():
                optimizer.step()
        except BaseException as error:
            raised.append(error)
            raise

    thread = threading.Thread(target=elsewhere)
    thread.start()
    try:
        for _ in range(3):
            swept(Loop(), 60)
    finally:
        stop.set()
        thread.join(60)
    assert not raised
