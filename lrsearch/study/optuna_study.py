"""The study in Optuna: one Optuna study a stage, in the folder's `optuna.db`; the only optuna import.

Every training is asked for and told, so that Optuna's own tools can follow and analyse it. The journal is the
truth: what Optuna does not have of it is added, and a database that is lost or damaged is made again.
"""

from __future__ import annotations

import logging
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

with warnings.catch_warnings():  # in a notebook without ipywidgets its progress bars complain
    warnings.filterwarnings("ignore", message="IProgress not found")
    import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.samplers import GPSampler
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from lrsearch.core.proposal import HIGHEST_LR, LOWEST_LR
from lrsearch.core.response import Observation
from lrsearch.core.study_plan import STAGES, StageName, StudyPlan
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.errors import RecordError, first_line
from lrsearch.schedules import schedule_name
from lrsearch.training.random_state import single_threaded

_KEY = "lrsearch.trial_key"

log = logging.getLogger("lrsearch.study")


@contextmanager
def _on_record() -> Iterator[None]:
    """What the database cannot take, for instance on a full disk, is a RecordError."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, OSError) as error:
        reason = first_line(error.__cause__ or error)
        raise RecordError(f"the study's optuna.db cannot be written: {reason}") from error


class Storage:
    """Optuna's view of a study's trials; RecordError where it cannot be written."""

    @_on_record()
    def __init__(self, path: Path, study: str, plan: StudyPlan) -> None:
        """Open the database, or make a new one where there is none that can be read."""
        self._path = path
        self._name = study
        self._plan = plan
        self._axes = _axes(plan)
        self._studies: dict[StageName, optuna.Study] = {}
        self._storage = _open(path)

    @_on_record()
    def ask(self, spec: TrialSpec) -> optuna.Trial:
        """A running Optuna trial for a training that is about to begin."""
        study = self._study(spec)
        study.enqueue_trial(_params(spec), user_attrs=_attributes(spec))
        with _quiet():
            return study.ask(self._axes)

    @_on_record()
    def tell(self, trial: optuna.Trial, result: TrialResult) -> None:
        """End a running Optuna trial as the training ended."""
        study = self._study(result.spec)
        if result.status == "failed":
            trial.set_user_attr("error", result.cause)
            study.tell(trial, state=TrialState.FAIL)
            return
        value, diverged = self._value(study, result)
        trial.set_constraint("diverged", diverged)
        study.tell(trial, value)

    @_on_record()
    def keep(self, result: TrialResult) -> None:
        """Add a training that the journal has, unless Optuna has it too; what was left running is failed."""
        study = self._study(result.spec)
        for known in study.get_trials(deepcopy=False):
            error = known.state == TrialState.FAIL and "error" not in known.user_attrs
            if known.user_attrs.get(_KEY) == result.spec.key and known.state.is_finished() and not error:
                return
        failed = result.status == "failed"
        value, diverged = (None, 1.0) if failed else self._value(study, result)
        study.add_trial(
            optuna.create_trial(
                state=TrialState.FAIL if failed else TrialState.COMPLETE,
                value=value,
                params=_params(result.spec),
                distributions=self._axes,
                user_attrs=_attributes(result.spec) | ({"error": result.cause} if failed else {}),
                constraints=None if failed else {"diverged": diverged},
            )
        )

    @_on_record()
    def close_orphans(self) -> None:
        """Fail every trial that a dead process left running or waiting."""
        for name in optuna.get_all_study_names(self._storage):
            study = optuna.load_study(study_name=name, storage=self._storage)
            with _quiet():
                for _ in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                    study.ask()  # one that waits cannot be told: it runs first
                for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                    study.tell(trial.number, state=TrialState.FAIL)

    def _study(self, spec: TrialSpec) -> optuna.Study:
        stage: StageName = spec.stage  # type: ignore[assignment]
        if stage not in self._studies:
            study = self._open_study(stage)
            if any(_differs(trial, self._axes) for trial in study.get_trials(deepcopy=False)):
                # Other families were to be tried: Optuna does not take that; the journal fills it again.
                optuna.delete_study(study_name=study.study_name, storage=self._storage)
                study = self._open_study(stage)
            before = STAGES[STAGES.index(stage) - 1]
            study.set_user_attr("lrsearch.previous_stage", f"{self._name}/{before}")
            study.set_user_attr("lrsearch.plan", self._plan.hash)
            study.set_user_attr("lrsearch.objective", self._plan.objective.metric)
            self._studies[stage] = study
        return self._studies[stage]

    def _open_study(self, stage: StageName) -> optuna.Study:
        with _quiet():
            return optuna.create_study(
                storage=self._storage,
                study_name=f"{self._name}/{stage}",
                direction=self._plan.objective.towards,
                load_if_exists=True,
            )

    def _value(self, study: optuna.Study, result: TrialResult) -> tuple[float, float]:
        """What Optuna is told: the objective; of a diverged trial the worst feasible one known so far, else
        that of the untrained model. With the constraint's value, above 0 where it diverged.
        """
        objective = self._plan.objective
        loss = objective.as_loss(result)
        if result.status == "complete" and loss is not None:
            return objective.from_loss(loss), -1.0
        known = [
            trial.value
            for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.value is not None and all(value <= 0 for value in trial.constraints.values())
        ]
        if known:
            return (max if objective.towards == "minimize" else min)(known), 1.0
        initial = objective.initial_loss(result)
        if initial is None:
            initial = result.initial_loss if result.initial_loss is not None else 0.0
        return objective.from_loss(initial), 1.0


def propose(observations: Sequence[Observation], low: float, high: float, seed: int) -> float:
    """An lr between two others that a Gaussian process on log lr thinks most worth a trial.

    `observations` are losses: lower is better; those that diverged bound it as a constraint. Every proposal
    has a sampler of its own, seeded from the study's `seed` and their number: the same ones give the same lr.
    """
    axis: dict[str, BaseDistribution] = {"lr": FloatDistribution(low, high, log=True)}
    worst = max((o.objective for o in observations if o.objective is not None), default=0.0)
    with _quiet(), single_threaded():
        study = optuna.create_study(sampler=GPSampler(seed=seed + len(observations), n_startup_trials=1))
        for o in observations:
            if low <= o.lr <= high:
                value = worst if o.diverged or o.objective is None else o.objective
                study.add_trial(
                    optuna.create_trial(
                        value=value,
                        params={"lr": o.lr},
                        distributions=axis,
                        constraints={"diverged": 1.0 if o.diverged else -1.0},
                    )
                )
        return float(study.ask(axis).params["lr"])


def _open(path: Path) -> optuna.storages.RDBStorage:
    with _quiet():
        try:
            _check_sound(path)
            return _hasty(optuna.storages.RDBStorage(f"sqlite:///{path}"))
        except Exception as error:  # whatever SQLite and Alembic say of a file that is none of theirs
            log.warning("%s cannot be read; it is made again from the journal: %s", path, first_line(error))
            path.replace(path.with_suffix(".damaged"))
            return _hasty(optuna.storages.RDBStorage(f"sqlite:///{path}"))


def _check_sound(path: Path) -> None:
    """Raise sqlite3.DatabaseError where a page is damaged: else that shows only when it is read."""
    if path.exists():
        with closing(sqlite3.connect(path)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)


def _hasty(storage: optuna.storages.RDBStorage) -> optuna.storages.RDBStorage:
    """Let SQLite not wait for the disk: a trial takes a dozen commits, and the journal has it all already."""

    def prepare(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA journal_mode=MEMORY")

    event.listen(storage.engine, "connect", prepare)
    storage.engine.dispose()
    return storage


def _axes(plan: StudyPlan) -> dict[str, BaseDistribution]:
    """Wide enough for every training of the plan: an axis may not change within an Optuna study."""
    names = {"constant", *map(schedule_name, (plan.base_schedule, *plan.decay.families))}
    names |= {f"warmup+{name}" for name in names if not name.startswith("warmup+")}
    return {
        "lr": FloatDistribution(LOWEST_LR, HIGHEST_LR, log=True),
        "schedule": CategoricalDistribution(sorted(names)),
        "seed": IntDistribution(0, 2**32),
    }


def _differs(trial: optuna.trial.FrozenTrial, axes: Mapping[str, BaseDistribution]) -> bool:
    """Whether a trial was made on other axes; one that waits has none yet."""
    return any(axis != axes[name] for name, axis in trial.distributions.items())


def _params(spec: TrialSpec) -> dict[str, Any]:
    return {"lr": spec.lr, "schedule": schedule_name(spec.schedule), "seed": spec.seed}


def _attributes(spec: TrialSpec) -> dict[str, Any]:
    return {_KEY: spec.key, "lrsearch.trial": spec.to_dict()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says every trial on stderr; the study says what it does itself."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
