"""The staged search as a person calls it: everything is checked before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lrsearch.core.observer import Observer
from lrsearch.core.presets import load_plan
from lrsearch.core.study_plan import StudyPlan
from lrsearch.errors import InputError
from lrsearch.study.config import StudyConfig, load_config
from lrsearch.study.files import is_finished
from lrsearch.study.load import load_study
from lrsearch.study.prepare import changes_asked, prepare
from lrsearch.study.record import StudyRecord
from lrsearch.study.result import StudyResult
from lrsearch.study.run import RunningStudy
from lrsearch.study.task_source import load_task
from lrsearch.tracking import destination as destinations
from lrsearch.tracking.destination import Destination, find_destination
from lrsearch.tracking.folder import StudyFolder, check_free, create_folder, find_folder
from lrsearch.tracking.lock import hold
from lrsearch.training.checkpoint import EVERY_S, check_every, keep_only
from lrsearch.training.task import Task

if TYPE_CHECKING:
    import os

    import torch

    from lrsearch.core.trial import Direction
    from lrsearch.training.subjects import TaskFunction
    from lrsearch.training.trial import TrainFunction

    PlanSource = str | os.PathLike[str] | Mapping[str, Any] | StudyPlan


def search(
    task: Task | TaskFunction | TrainFunction,
    name: str,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    plan: PlanSource | None = None,
    objective: str | Mapping[str, Any] | None = None,
    direction: Direction | None = None,
    seed: int | None = None,
    device: str | torch.device | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    checkpoint_every: float = EVERY_S,
    tags: Mapping[str, str] | None = None,
    progress: Observer | bool = True,
    source: tuple[str, Sequence[str]] | None = None,
) -> StudyResult:
    """Search the learning rate and the decay schedule of a task, as a study on record.

    A range test brackets the lr; a coarse grid and a fine search find it under the plan's base schedule; the
    decay stage tries schedules around it; and the finalists are confirmed on fresh seeds.

    Parameters
    ----------
    task : Task or function
        A `Task`, the function without arguments that makes it, or a training function ``train(trial)``, see
        `Trial`.
    name : str
        The name of the study, and of its folder below ``LRSEARCH_HOME`` (by default ``lrsearch-runs``).
    epochs, steps : int, optional
        The length of a full training, in epochs or in updates; give at most one. By default 5 epochs.
    plan : str, path, mapping or StudyPlan, optional
        ``"quick"``, ``"default"`` or ``"thorough"``; the path of a TOML file; or a mapping of the settings of
        a `StudyPlan`. By default ``"default"``; with `resume`, the plan that the study was begun with.
    objective : str or mapping, optional
        A metric that the trials report, such as ``"val/accuracy"``, or a mapping with ``metric``,
        ``direction`` and ``use`` (``"final"`` or ``"best"``). By default the final ``val/loss``.
    direction : {"minimize", "maximize"}, optional
        Needed only where the metric's name does not say it.
    seed : int, optional
        The seed of the whole study, by default 0.
    device : str or torch.device, optional
        Where to train; by default the accelerator that torch finds, else the CPU.
    resume : bool
        Whether to go on with an interrupted study of this name. Nothing that is finished runs twice.
    accept_changes : bool
        Whether to resume even though the plan, the task or the data have changed. Without it that is refused.
    tracking_uri, experiment : str, optional
        MLflow's server and experiment, where the trials can be watched while the study runs. By default those
        of the environment, or ``sqlite:///mlflow.db`` and ``lrsearch/<task>``.
    checkpoint_every : float
        The seconds between checkpoints of a training, 60 by default. A training of a `Task` is also kept
        where it is interrupted, and goes on from there.
    tags : mapping of str to str, optional
        Further tags for the runs in MLflow.
    progress : bool or Observer
        Whether to show on stderr how far the study is, or an observer to be told of it.
    source : tuple of (str, sequence of str), optional
        The task's name and settings, as on the command line; with them `resume` and `reproduce` can make the
        task again.

    Returns
    -------
    StudyResult
        The answer, the stages and everything that was run.

    Raises
    ------
    InputError
        For a wrong argument, before anything is trained.
    StudyError
        If the trials leave nothing to search.
    RecordError
        If the study's folder cannot be written or read.

    Notes
    -----
    The unit of cost is the run-equivalent, one full training; a study costs at most ``plan.budget`` of them.

    The same seed gives the same trials and the same answer, bit for bit on a CPU.

    References
    ----------
    - L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2015,
      https://arxiv.org/abs/1506.01186 (the range test)
    - T. Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", 2019,
      https://arxiv.org/abs/1907.10902 (trials and samplers)

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> import lrsearch
    >>> _ = torch.manual_seed(0)
    >>> inputs = torch.randn(200, 4)
    >>> targets = inputs.sum(1, keepdim=True) + torch.randn(200, 1)
    >>> train_set = TensorDataset(inputs[:160], targets[:160])
    >>> val_set = TensorDataset(inputs[160:], targets[160:])
    >>> def task():
    ...     return lrsearch.Task(
    ...         model=lambda: nn.Linear(4, 1),
    ...         optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
    ...         loss=nn.MSELoss(),
    ...         train_loader=DataLoader(train_set, batch_size=8, shuffle=True),
    ...         val_loader=DataLoader(val_set, batch_size=40),
    ...     )
    >>> result = lrsearch.search(task, "example", epochs=1, plan="quick", progress=False)
    >>> 1e-3 < result.lr < 1
    True
    >>> result.config.total_steps, result.cost <= result.config.plan.budget
    (20, True)
    >>> [stage.stage for stage in result.stages]
    ['range-test', 'coarse', 'fine', 'decay', 'confirm']
    """
    check_every(checkpoint_every)
    if not resume:
        check_free(name)
    if plan is None:
        plan = load_config(find_folder(name)).plan if resume else "default"
    chosen = load_plan(plan).with_changes(**changes_asked(epochs, steps, seed, objective, direction))
    prepared = prepare(task, chosen, device, source)
    config = prepared.config
    folder, changes = _folder(name, config, resume, accept_changes)
    if not changes and is_finished(folder):  # changes may have been accepted, and nothing done since
        return load_study(folder)
    with ExitStack() as stack:
        stack.enter_context(hold(folder))
        changed = resume and bool(config.differences(load_config(folder)))
        if resume:
            config = replace(config, accepted={**config.accepted, **changes})
            prepared = replace(prepared, config=config)
            if changed:  # first: once the changes are saved, nobody sees that its checkpoints are of others
                keep_only(folder.checkpoints, ())
            config.save(folder)
        open_record = StudyRecord.resume if folder.journals() else StudyRecord.create
        record = stack.enter_context(
            open_record(
                folder,
                _destination(folder, config, tracking_uri, experiment),
                task=config.task,
                objective=config.plan.objective,
                params={**config.model_info, **config.task_kwargs},
                tags=tags or {},
                data=config.data,
                steps_per_epoch=config.steps_per_epoch,
            )
        )
        for damage in record.damage:
            warnings.warn(f"{damage}; the rest is used", UserWarning, stacklevel=2)
        keep_only(folder.checkpoints, record.resumable)
        observer = Observer() if isinstance(progress, bool) else progress
        if progress is True:
            from lrsearch.report.progress import StudyProgress

            shown = StudyProgress(config.plan, config.total_steps, config.steps_per_epoch)
            observer = stack.enter_context(shown)
        return RunningStudy(prepared, folder, record, observer, checkpoint_every).run()


def resume(
    name: str,
    *,
    device: str | torch.device | None = None,
    accept_changes: bool = False,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    checkpoint_every: float = EVERY_S,
    progress: Observer | bool = True,
) -> StudyResult:
    """Go on with an interrupted study that was begun on the command line, to its plan's end.

    A finished study is answered from its record.

    Parameters
    ----------
    name : str
        The name of the study, or the path of its folder.
    device : str or torch.device, optional
        Where to train; by default the accelerator that torch finds, else the CPU.
    accept_changes : bool
        Whether to go on even though the task or the data have changed. Without it that is refused.
    tracking_uri, experiment : str, optional
        MLflow's server and experiment; by default those that the study was recorded in before.
    checkpoint_every : float
        The seconds between checkpoints of a training, 60 by default.
    progress : bool or Observer
        Whether to show on stderr how far the study is, or an observer to be told of it.

    Returns
    -------
    StudyResult
        The study's result, as without the interruption: on a CPU it is the same bit for bit.

    Raises
    ------
    InputError
        For an unknown name, for a task or data that have changed, and for a study whose task was handed over
        in Python: call ``lrsearch.search(task, name, resume=True)`` there.
    StudyError
        If the trials leave nothing to search.
    RecordError
        If the study's folder cannot be written or read.

    Examples
    --------
    Here "small" is the name of a study that is finished:

    >>> import lrsearch
    >>> lrsearch.resume("small", progress=False)
    StudyResult('small', lr=..., schedule=..., cost=...)
    """
    config = load_config(find_folder(name))
    if config.source is None:
        raise InputError(
            "name",
            name,
            "its task was handed over in Python",
            f"call lrsearch.search(task, {name!r}, resume=True)",
        )
    return search(
        load_task(config.source, config.settings),
        name,
        plan=config.plan,
        device=device,
        resume=True,
        accept_changes=accept_changes,
        tracking_uri=tracking_uri,
        experiment=experiment,
        checkpoint_every=checkpoint_every,
        progress=progress,
        source=(config.source, config.settings),
    )


def _folder(
    name: str, config: StudyConfig, resuming: bool, accept_changes: bool
) -> tuple[StudyFolder, Mapping[str, Any]]:
    """A new folder, or that of the study to resume, with the changes of its config that are accepted."""
    if not resuming:
        return create_folder(name, begin=config.save), {}
    folder = find_folder(name)
    before = load_config(folder)
    if not accept_changes:
        config.check(before)
    return folder, {**before.accepted, **config.differences(before)}


def _destination(
    folder: StudyFolder, config: StudyConfig, tracking_uri: str | None, experiment: str | None
) -> Destination:
    """Where it was recorded before, unless another place is named."""
    kept = destinations.load(folder) if tracking_uri is None and experiment is None else None
    return kept or find_destination(f"lrsearch/{config.task}", tracking_uri, experiment)
