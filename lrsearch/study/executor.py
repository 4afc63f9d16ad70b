"""Where the trainings of a study are run, recorded and remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.core.executor import ImmediateExecutor
from lrsearch.core.observer import Observer
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.study.optuna_study import Storage
from lrsearch.study.record import StudyRecord, TrialRecord
from lrsearch.tracking.folder import StudyFolder
from lrsearch.training.checkpoint import Checkpoints
from lrsearch.training.random_state import repeats_itself
from lrsearch.training.run_trial import run_trial
from lrsearch.training.signals import DeferredSignals
from lrsearch.training.task import Task

if TYPE_CHECKING:
    import torch

    from lrsearch.training.trial import TrainFunction


class RecordingExecutor(ImmediateExecutor):
    """Trains in this process; what the record holds is not trained again."""

    def __init__(
        self,
        subject: Task | TrainFunction,
        device: torch.device,
        plan: StudyPlan,
        record: StudyRecord,
        storage: Storage,
        observer: Observer,
        checkpoint_every: float,
    ) -> None:
        self._subject = subject
        self._device = device
        self._plan = plan
        self._record = record
        self._storage = storage
        self._observer = observer
        self._checkpoint_every = checkpoint_every
        self._submitted: Counter[str] = Counter()
        self.exact = repeats_itself(device)

    def run(self, spec: TrialSpec) -> TrialResult:
        """Return the result of a training: from the record where it is there, else trained now.

        The order is journal, then Optuna; MLflow's mirror follows the journal by itself.
        """
        number = self._submitted[spec.stage]
        self._submitted[spec.stage] += 1
        result = self._record.finished.get(spec.key)
        if result is not None:
            self._storage.keep(result)
        else:
            result = self._train(spec, number)
        self._observer.trial_ends(result)
        return result

    def _train(self, spec: TrialSpec, number: int) -> TrialResult:
        self._observer.trial_begins(spec, number)
        if not isinstance(self._subject, Task):  # a loop of one's own cannot be entered in the middle
            return self._recorded(spec, number)
        with DeferredSignals() as signals:  # one that comes while the result is written waits, too
            return self._recorded(spec, number, signals)

    def _recorded(self, spec: TrialSpec, number: int, signals: DeferredSignals | None = None) -> TrialResult:
        """Trains and records; a task goes on from its checkpoint."""
        folder = self._record.folder
        asked = self._storage.ask(spec)
        with self._record.trial(spec, number) as record:
            checkpoints = Checkpoints(
                folder.checkpoints, spec.key, self._checkpoint_every, flush=record.flush, signals=signals
            )
            keeps_weights = spec.stage == "confirm" and isinstance(self._subject, Task)
            result = run_trial(
                self._subject,
                spec,
                self._device,
                _Listener(record, self._observer),
                objective=self._plan.objective.metric,
                direction=self._plan.objective.towards,
                divergence=self._plan.divergence,
                weights=weights_path(folder, spec) if keeps_weights else None,
                checkpoints=checkpoints,
            )
            record.finish(result)
        checkpoints.remove()
        self._storage.tell(asked, result)
        return result


def weights_path(folder: StudyFolder, spec: TrialSpec) -> Path:
    """Where the weights of a finished training lie."""
    return folder.checkpoints / f"{spec.key}.pt"


class _Listener:
    """Hands a training's points to its record, and tells the observer how far it is."""

    def __init__(self, record: TrialRecord, observer: Observer) -> None:
        self._record = record
        self._observer = observer

    def begin(self, model_info: Mapping[str, Any]) -> None:
        self._record.begin(model_info)

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        self._record.record(step, metrics)
        self._observer.trial_step(step)
