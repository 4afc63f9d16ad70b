"""A study at work: its range test, its stages, its answer, all of it on record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.budget import Budget
from lrsearch.core.curve import RangeTestCurve
from lrsearch.core.findings import Bracket, SweepFindings
from lrsearch.core.observer import Observer, Observers
from lrsearch.core.procedure import bracket_of, run_stages
from lrsearch.core.response import Observation
from lrsearch.core.study_plan import StageName
from lrsearch.core.suggest import combine, suggest
from lrsearch.study.executor import RecordingExecutor, weights_path
from lrsearch.study.files import FILES, write_files
from lrsearch.study.gather import gather
from lrsearch.study.optuna_study import Storage, propose
from lrsearch.study.prepare import PreparedStudy
from lrsearch.study.record import StudyRecord
from lrsearch.study.result import StudyResult
from lrsearch.study.sweep_record import RangeTestRecord
from lrsearch.tracking.folder import StudyFolder
from lrsearch.training.run_trial import evaluate
from lrsearch.training.subjects import FromTask
from lrsearch.training.sweep import sweep


class RunningStudy(Observer):
    """Runs the range test and the stages; what the record holds is not trained again.

    A study that was interrupted goes on by running its stages once more: with the same results they decide
    the same. It hears of them itself, to keep their findings.
    """

    def __init__(
        self,
        prepared: PreparedStudy,
        folder: StudyFolder,
        record: StudyRecord,
        observer: Observer,
        checkpoint_every: float,
    ) -> None:
        self._prepared = prepared
        self._folder = folder
        self._record = record
        self._observer = observer
        self._budget = Budget(prepared.plan, prepared.config.total_steps)
        self._stages: list[StageResult] = []
        self._storage = Storage(folder.optuna_db, folder.name, prepared.plan)
        subject = prepared.subject
        self._executor = RecordingExecutor(
            subject.task if isinstance(subject, FromTask) else subject.train,
            prepared.device,
            prepared.plan,
            record,
            self._storage,
            observer,
            checkpoint_every,
        )

    def run(self) -> StudyResult:
        """Run all stages, one after the other, and conclude."""
        self._storage.close_orphans()
        bracket = self._range_test()
        base, confirmed = run_stages(self._budget, self._executor, self._propose, bracket, self)
        return self._conclude(self._prepared.config.conclude(self._stages, bracket, base, confirmed))

    def stage_begins(self, stage: StageName) -> None:
        """Tell the observer."""
        self._observer.stage_begins(stage)

    def stage_ends(self, result: StageResult) -> None:
        """Keep what was found, on record too, and tell the observer."""
        self._stages.append(result)
        self._record.stage_ended(result)
        self._observer.stage_ends(result)

    def _propose(self, observations: Sequence[Observation], low: float, high: float) -> float:
        return propose(observations, low, high, self._prepared.plan.seed)

    def _range_test(self) -> Bracket | None:
        """The bracket of several sweeps; None where they give no sound one."""
        self.stage_begins("range-test")
        plan = self._prepared.config.sweep
        known = self._record.finished_range_test(plan)
        if known is not None:
            curves, suggestion = known
        else:
            with self._record.range_test(plan) as record:
                observer = Observers(record, self._observer)
                curves = tuple(self._sweep(seed, record, observer) for seed in plan.seeds)
                suggestion = combine([suggest(curve) for curve in curves])
                record.finish(curves, suggestion)
        cost = self._budget.book_steps(sum(curve.steps for curve in curves))
        self.stage_ends(StageResult("range-test", (), cost, SweepFindings.of(suggestion)))
        return bracket_of(suggestion)

    def _sweep(self, seed: int, record: RangeTestRecord, observer: Observer) -> RangeTestCurve:
        """One seed's curve, from the record where it was swept before."""
        prepared = self._prepared
        curve = record.swept_before(seed)
        if curve is None:
            plan = prepared.config.sweep.model_copy(update={"repeats": 1, "seed": seed})
            (curve,) = sweep(prepared.subject, plan, prepared.device, observer)
            record.swept(curve)
        return curve

    def _conclude(self, answer: Answer) -> StudyResult:
        """Writes the answer down: files, the study's run, the winner's tag."""
        config = self._prepared.config
        result = StudyResult(
            name=self._folder.name,
            answer=answer,
            stages=tuple(self._stages),
            config=config,
            folder=self._folder,
            mirror=self._record.mirror,
            key=self._record.key,
        )
        result = self._with_weights(result)
        in_hand = (result.answer, result.stages)
        table = result.trials.to_csv(index=False)
        write_files(self._folder, *in_hand, table, gather(self._folder, in_hand))
        self._record.conclude(config.plan, result.answer, result.summary(), FILES)
        self._record.mark_winner([trial.spec.key for trial in result.trials_of(answer.winner)])
        return result

    def _with_weights(self, result: StudyResult) -> StudyResult:
        """Keep the winner's and the constant lr's weights, read the test data with them, drop the others."""
        kept: dict[str, Path] = {}
        for label, finalist in (("winner", result.answer.winner), ("constant", result.answer.constant)):
            trials = result.trials_of(finalist) if finalist is not None else []
            if trials and (path := weights_path(self._folder, trials[0].spec)).is_file():
                kept[label] = path
        for path in self._folder.checkpoints.glob("*.pt"):
            if path not in kept.values():
                path.unlink()
        test = {}
        for label, path in kept.items():
            self._record.attach(path.stem, f"{self._folder.checkpoints.name}/{path.name}")
            task = self._prepared.subject.task if isinstance(self._prepared.subject, FromTask) else None
            if task is not None and task.test_loader is not None:
                test[label] = evaluate(task, path, self._prepared.device)
        return replace(result, answer=replace(result.answer, test=test))
