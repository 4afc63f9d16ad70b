"""A training loop of one's own, swept: it is handed the sweep as its schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from lrsearch.core.sweep_plan import SweepPlan
from lrsearch.core.trial import TrialSpec
from lrsearch.errors import InputError, StopTrial
from lrsearch.training.loop import Observe, Outcome
from lrsearch.training.lr_scaling import LoopLook, look_at_loop, warn_of_unscaled
from lrsearch.training.random_state import preserve_random_state, seed_everything
from lrsearch.training.subjects import FIRST_STEPS, SweepOrder
from lrsearch.training.task import choose_device
from lrsearch.training.trial import TrainFunction, Trial
from lrsearch.training.untrained import BadBatch, speaks_of_numbers


@dataclass(frozen=True)
class CustomLoop:
    """A training function ``train(trial)``, which is handed the sweep as its schedule.

    It is run twice or more up to its first update: that tells how the lrs of its optimizers follow
    `trial.lr`, which is what is swept.
    """

    train: TrainFunction
    _looks: dict[tuple[float, float], LoopLook | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def check(self, plan: SweepPlan, device: str | torch.device | None) -> torch.device:
        """Raises InputError for a setting that a loop of one's own decides itself, and for a loop that
        ignores its lr; returns the device to train on.

        Warns of param groups whose lr does not follow `trial.lr` in proportion.
        """
        defaults = SweepPlan()
        for name in ("accumulate", "clip", "precision"):
            value = getattr(plan, name)
            if value != getattr(defaults, name):
                raise InputError(name, value, "is the business of your training function", "leave it out")
        chosen = choose_device(device)
        if (look := self._look(plan, chosen)) is not None:
            warn_of_unscaled("the training function", look.unscaled)
        return chosen

    def steps(self, plan: SweepPlan) -> int:
        """Steps of the sweep: those of the plan, or the whole epochs therein that the loop trains."""
        look = self._looks.get(_ends(plan))
        return plan.steps_for(None) if look is None else look.steps

    def run(self, order: SweepOrder) -> Outcome:
        """One sweep; random states are put back afterwards, all else is the function's own.

        Raises InputError where the function never reports a training loss, leaves steps out, does not build
        the schedule, or trains at other lrs.
        """
        watch = _SweepWatch(order.observe)
        schedule = order.schedule
        look = self._look(order.plan, order.device)
        if look is not None and look.unscaled:
            lrs = schedule.curve(order.plan.max_lr, self.steps(order.plan)).tolist()
            schedule = replace(schedule, courses=look.at(lrs))
        spec = TrialSpec(
            stage="range-test",
            lr=order.plan.max_lr,
            schedule=schedule.to_dict(),
            seed=order.seed,
            steps=self.steps(order.plan),
        )
        trial = Trial(spec, order.device, record=watch.record, monitor=watch.monitor, objective="train/loss")
        order.begin({"device": str(order.device)})
        with preserve_random_state(), trial.schedule.counted():
            seed_everything(order.seed)
            raised: Exception | None = None
            try:
                self.train(trial)
            except StopTrial:
                pass  # the watch knows why it stopped
            except Exception as error:
                if watch.steps < FIRST_STEPS or not speaks_of_numbers(error):
                    raise
                watch.raised(error, spec.steps)
                raised = error
        found = trial.left_out(raised)
        if found:
            raise InputError(
                "train",
                self.train,
                found[0],
                "make the optimizer with trial.lr, build trial.schedule; at each update, call its step() and "
                "trial.report(step, train_loss=…)",
            )
        if watch.heard_nothing:
            raise InputError(
                "train",
                self.train,
                "never reported a training loss",
                "call trial.report(step, train_loss=loss) after each update",
            )
        return watch.ended(spec.steps)

    def _look(self, plan: SweepPlan, device: torch.device) -> LoopLook | None:
        """The lrs of its optimizers at both ends of the sweep, and between them where they bend."""
        ends = _ends(plan)
        if ends not in self._looks:
            self._looks[ends] = look_at_loop(self.train, ends, plan.steps_for(None), device)
        return self._looks[ends]


def _ends(plan: SweepPlan) -> tuple[float, float]:
    return plan.min_lr, plan.max_lr


class _SweepWatch:
    """Turns a trial's reports into the sweep's points, one a step.

    A loss that is not finite ends the sweep with the next such loss: where one is finite again in between,
    the weights have survived, and it was the batch.
    """

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._step = 0
        self._is_without_lr = False
        self._reason: str | None = None
        self._waiting: int | None = None
        self._passed_over: list[BadBatch] = []
        self._outcome: Outcome | None = None

    @property
    def steps(self) -> int:
        """Updates reported so far."""
        return self._step

    @property
    def heard_nothing(self) -> bool:
        """Whether no training loss was reported at all."""
        return self._step == 0 and not self._is_without_lr

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hands a point on, and keeps what the sweep says to it."""
        if "train/loss" not in metrics:
            return
        if "lr" not in metrics:
            self._is_without_lr = True
            return
        if step != self._step + 1 and self._is_without_lr and self._step == 0:
            raise InputError(
                "step",
                step,
                "comes after reports that no update under trial.schedule came before",
                "build it before the first update, and report once an update, after optimizer.step()",
            )
        if step != self._step + 1:
            raise InputError("step", step, f"follows step {self._step}", "report every step of a range test")
        self._step = step
        self._reason = self._observe(step, metrics["lr"], metrics["train/loss"])

    def monitor(self, step: int, loss: float) -> str | None:
        """The reason to stop, if any, after the report of a training loss."""
        if not math.isfinite(loss):
            if self._waiting is not None:
                self._outcome = Outcome(self._waiting - 1, self._waiting, "not_finite")
            else:
                self._waiting = self._step = step
            return "not_finite"
        if self._waiting is not None:
            self._passed_over.append(BadBatch(self._waiting, self._waiting))
            self._waiting = None
        if self._reason is not None:
            self._outcome = Outcome(self._step, self._step, self._reason)
        return self._reason

    def raised(self, error: Exception, steps: int) -> None:
        """The training function raised after its last report, perhaps when all `steps` were done."""
        at = self._waiting or min(self._step + 1, steps)
        self._outcome = Outcome(at - 1, at, "raised", error)

    def ended(self, steps: int) -> Outcome:
        """How the sweep went."""
        found = self._outcome or Outcome(steps)
        if self._outcome is None and self._waiting is not None:
            found = Outcome(self._waiting - 1, self._waiting, "not_finite")
        return replace(found, passed_over=tuple(self._passed_over))
