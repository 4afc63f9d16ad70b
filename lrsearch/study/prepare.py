"""A study before it begins: what is trained, how, on what config; all that can be checked is checked here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from lrsearch.core.objective import Objective
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.sweep_plan import SweepPlan
from lrsearch.core.trial import check_name
from lrsearch.errors import InputError, LrsearchError, first_line, is_out_of_memory
from lrsearch.schedules import schedule_from_dict
from lrsearch.study.config import StudyConfig
from lrsearch.study.subject import called, data_of, kwargs_of
from lrsearch.training.custom_loop import CustomLoop
from lrsearch.training.data import describe
from lrsearch.training.metrics import MetricError
from lrsearch.training.run_trial import check_repeatable
from lrsearch.training.subjects import FromTask, is_train_function
from lrsearch.training.task import Task, steps_per_epoch
from lrsearch.training.validation import validate

if TYPE_CHECKING:
    import torch

    from lrsearch.training.subjects import TaskFunction
    from lrsearch.training.trial import TrainFunction


@dataclass(frozen=True)
class PreparedStudy:
    """A study before it begins: what is trained, how, and on what config."""

    subject: FromTask | CustomLoop
    config: StudyConfig
    device: torch.device

    @property
    def plan(self) -> StudyPlan:
        """The plan, every schedule with all its parameters."""
        return self.config.plan


def changes_asked(
    epochs: int | None,
    steps: int | None,
    seed: int | None,
    objective: str | Mapping[str, Any] | None,
    direction: str | None = None,
) -> dict[str, Any]:
    """What these arguments change in a plan; InputError where two of them contradict each other."""
    changes: dict[str, Any] = {}
    if epochs is not None:
        changes |= {"epochs": epochs, "steps": steps}
    elif steps is not None:
        changes |= {"steps": steps, "epochs": None}
    if seed is not None:
        changes["seed"] = seed
    if objective is not None:
        changes["objective"] = {"metric": objective} if isinstance(objective, str) else dict(objective)
    if direction is not None:
        said = changes.setdefault("objective", {}).setdefault("direction", direction)
        if said not in (None, direction):
            raise InputError(
                "direction", direction, f"is given beside objective['direction']={said!r}", "give one of them"
            )
        changes["objective"]["direction"] = direction
    return changes


def prepare(
    task: Task | TaskFunction | TrainFunction,
    plan: StudyPlan,
    device: str | torch.device | None = None,
    source: tuple[str, Sequence[str]] | None = None,
) -> PreparedStudy:
    """Checks everything that can be checked before a training; raises InputError."""
    given, name = called(task)
    if not isinstance(given, Task) and not is_train_function(given):
        raise InputError("task", task, "is no task", "hand over an lrsearch.Task, or a function train(trial)")
    task_kwargs = kwargs_of(given)
    _check_kwargs(task_kwargs)
    subject = FromTask(given) if isinstance(given, Task) else CustomLoop(given)
    lrs = {name: getattr(plan.range_test, name) for name in ("min_lr", "max_lr")}
    updates = given.settings.said() if isinstance(given, Task) else {}
    sweeps = SweepPlan(**lrs, **updates, repeats=2)  # every loader is read again and again
    chosen = subject.check(sweeps, device)
    epoch = steps_per_epoch(given) if isinstance(given, Task) else None
    if not isinstance(given, Task):  # its optimizer is its own: there is no other to hold it against
        plan = plan.with_changes(baseline=False)
    if isinstance(given, Task) and plan.epochs is None and plan.steps is None:
        plan = plan.with_changes(epochs=given.epochs, steps=given.steps)
    total_steps = plan.total_steps(epoch)
    _check_objective(given, plan)
    plan = with_whole_schedules(plan, total_steps, epoch).with_whole_sweeps(total_steps)
    model_info: Mapping[str, Any] = {}
    if isinstance(given, Task):
        check_repeatable(given, plan.seed, chosen)
        _check_validation(given, chosen)
    if isinstance(subject, FromTask):
        model_info = subject.look(sweeps, chosen).model_info
    config = StudyConfig(
        plan=plan,
        task=name,
        model_info=model_info,
        task_kwargs=task_kwargs,
        data={context: data for context, data in data_of(subject).items() if data is not None},
        total_steps=total_steps,
        steps_per_epoch=epoch,
        source=source[0] if source else None,
        settings=tuple(source[1]) if source else (),
    )
    return PreparedStudy(subject, config, chosen)


def _check_validation(task: Task, device: torch.device) -> None:
    """Raise InputError for a validation that fails, and for a metric that is no number.

    Told from the first batch, unless a metric cannot be computed on it: then from all.
    """
    loaders = [loader for loader in (task.val_loader, task.test_loader) if loader is not None]
    with task.preserve(loaders):
        model = task.build_model(device)
        for loader in loaders:
            part: Literal["val", "test"] = "val" if loader is task.val_loader else "test"
            first = list(islice(loader, 1))
            try:
                try:
                    validate(task, model, first, device, part=part, seed=0)
                except MetricError:
                    validate(task, model, loader, device, part=part, seed=0)
            except MetricError as error:
                mend = "give a metric of a batch, or one of the whole set: lrsearch.whole(fn)"
                raise InputError(error.name, None, error.problem, mend) from error
            except LrsearchError:
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                reason = f"{type(error).__name__}: {first_line(error)}"
                raise InputError(
                    f"{part}_loader",
                    describe(first[0]),
                    f"validation fails on its first batch ({reason})",
                    "compare these shapes with what model, loss and metrics expect; a model that gives its "
                    "loss in train mode only needs Task(val_step=…)",
                ) from error


def with_whole_schedules(plan: StudyPlan, total_steps: int, steps_per_epoch: int | None) -> StudyPlan:
    """The plan with every schedule's parameters spelled out; a plateau reads the objective in its direction.

    Raises InputError for a schedule that cannot be trained.
    """

    def whole(data: Mapping[str, Any], steps: int) -> dict[str, Any]:
        schedule = schedule_from_dict(_facing(plan.objective, data))
        schedule.curve(1.0, steps, steps_per_epoch)
        return schedule.to_dict()

    shortest = max(1, round(plan.proxy * total_steps))
    return plan.with_changes(
        base_schedule=whole(plan.base_schedule, shortest),
        decay={"families": [whole(family, total_steps) for family in plan.decay.families]},
    )


def _facing(objective: Objective, data: Any) -> Any:
    """A schedule as data, its plateau (also one behind a warmup) with the mode of the objective."""
    if not isinstance(data, Mapping):
        return data
    if data.get("name") != "plateau":
        return {name: _facing(objective, value) if name == "inner" else value for name, value in data.items()}
    mode, other = ("min", "max") if objective.towards == "minimize" else ("max", "min")
    if data.get("mode") == other:
        aim = f"{objective.towards} {objective.metric}"
        raise InputError(
            "plateau.mode", other, f"the objective is to {aim}", f"leave it out, or give {mode!r}"
        )
    return {"mode": mode, **data}


def _check_kwargs(task_kwargs: Mapping[str, Any]) -> None:
    """Raise InputError for an argument that cannot be kept on record."""
    for name, value in task_kwargs.items():
        check_name("arguments", name)
        try:
            json.dumps(value, allow_nan=False, default=str)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"arguments[{name!r}]",
                value,
                f"cannot be recorded ({first_line(error)})",
                "give finite numbers or text, or lists and tables of them",
            ) from error


def _check_objective(given: Task | TrainFunction, plan: StudyPlan) -> None:
    """Raise InputError for a metric that no trial of a task reports, and for one of unknown direction."""
    if isinstance(given, Task):
        _check_reported(given, plan.objective.metric)
    _ = plan.objective.towards


def _check_reported(task: Task, metric: str) -> None:
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
