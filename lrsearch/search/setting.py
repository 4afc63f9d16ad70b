"""A study before it begins: what is trained, how, on what terms; all that can be checked is checked here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from lrsearch.core.plan import SweepPlan
from lrsearch.core.study_plan import StudyPlan
from lrsearch.errors import InputError
from lrsearch.search.subject import arguments_of, called, data_of
from lrsearch.search.terms import Terms
from lrsearch.training.data import batch_count
from lrsearch.training.schedules import Sweep, schedule_from_dict
from lrsearch.training.state import preserve_random_state
from lrsearch.training.subjects import Fresh, OwnLoop, is_train_function
from lrsearch.training.task import Task
from lrsearch.training.trial_run import check_repeatable
from lrsearch.training.validation import validate

if TYPE_CHECKING:
    import torch

    from lrsearch.training.subjects import TaskFunction, TrainFunction


@dataclass(frozen=True)
class Setting:
    """A study before it begins: what is trained, how, and on what terms."""

    subject: Fresh | OwnLoop
    terms: Terms
    device: torch.device

    @property
    def plan(self) -> StudyPlan:
        """The plan, every schedule with all its parameters."""
        return self.terms.plan


def changes_asked(
    epochs: int | None, steps: int | None, seed: int | None, objective: str | Mapping[str, Any] | None
) -> dict[str, Any]:
    """What these arguments change in a plan."""
    changes: dict[str, Any] = {}
    if epochs is not None:
        changes |= {"epochs": epochs, "steps": steps}
    elif steps is not None:
        changes |= {"steps": steps, "epochs": None}
    if seed is not None:
        changes["seed"] = seed
    if objective is not None:
        changes["objective"] = {"metric": objective} if isinstance(objective, str) else dict(objective)
    return changes


def prepare(
    task: Task | TaskFunction | TrainFunction,
    plan: StudyPlan,
    device: str | torch.device | None = None,
    source: tuple[str, Sequence[str]] | None = None,
) -> Setting:
    """Checks everything that can be checked before a training; raises InputError."""
    given, name = called(task)
    if not isinstance(given, Task) and not is_train_function(given):
        raise InputError("task", task, "is no task", "hand over an lrsearch.Task, or a function train(trial)")
    subject = Fresh(given) if isinstance(given, Task) else OwnLoop(given)
    lrs = {name: getattr(plan.range_test, name) for name in ("min_lr", "max_lr")}
    sweeps = SweepPlan(**lrs, repeats=2)  # every loader is read again and again
    chosen = subject.check(sweeps, device)
    steps_per_epoch = batch_count(given.train_loader) if isinstance(given, Task) else None
    if not isinstance(given, Task):  # its optimizer is its own: there is no other to hold it against
        plan = plan.with_changes(baseline=False)
    total_steps = plan.total_steps(steps_per_epoch)
    plan = with_whole_schedules(plan, total_steps, steps_per_epoch)
    facts: Mapping[str, Any] = {}
    if isinstance(given, Task):
        _check_objective(given, plan)
        check_repeatable(given, plan.seed, chosen)
        _check_metrics(given, chosen)
    if isinstance(subject, Fresh):
        facts = subject.look(sweeps, chosen).facts
    terms = Terms(
        plan=plan,
        task=name,
        facts=facts,
        arguments=arguments_of(given),
        data={context: data for context, data in data_of(subject).items() if data is not None},
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        source=source[0] if source else None,
        settings=tuple(source[1]) if source else (),
    )
    return Setting(subject, terms, chosen)


def _check_metrics(task: Task, device: torch.device) -> None:
    """Raise InputError for a metric that is no number, told from the first validation batch."""
    loaders = [loader for loader in (task.val_loader, task.test_loader) if loader is not None]
    with preserve_random_state(loaders):
        model = task.build_model(device)
        for loader in loaders:
            part: Literal["val", "test"] = "val" if loader is task.val_loader else "test"
            validate(task, model, list(islice(loader, 1)), device, part=part, seed=0)


def with_whole_schedules(plan: StudyPlan, total_steps: int, steps_per_epoch: int | None) -> StudyPlan:
    """The plan with every schedule's parameters spelled out; InputError for one that cannot be trained."""

    def whole(data: Mapping[str, Any], steps: int) -> dict[str, Any]:
        schedule = schedule_from_dict(data)
        if isinstance(schedule, Sweep):
            raise InputError("schedule", data["name"], "is no decay", "leave it out of the plan")
        schedule.curve(1.0, steps, steps_per_epoch)
        return schedule.to_dict()

    shortest = max(1, round(plan.proxy * total_steps))
    return plan.with_changes(
        base_schedule=whole(plan.base_schedule, shortest),
        decay={"families": [whole(family, total_steps) for family in plan.decay.families]},
    )


def _check_objective(task: Task, plan: StudyPlan) -> None:
    metric = plan.objective.metric
    known = ["train/loss"]
    if task.val_loader is not None:
        known += ["val/loss", *(f"val/{name}" for name in task.metrics)]
    elif metric.startswith("val/"):
        raise InputError(
            "val_loader",
            None,
            f"is missing, and the objective {metric} needs it",
            "give the task one, or objective='train/loss'",
        )
    if metric not in known:
        raise InputError(
            "objective.metric", metric, "is reported by no trial", f"choose from {', '.join(known)}"
        )
