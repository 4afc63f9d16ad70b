"""What a study says to bad input, and to trials that raise: one line, nothing trained, nothing left."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Container
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, SupportsIndex

import pytest
import torch
from torch import Tensor, nn

from lrsearch import InputError, StudyError, Task, Trial
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.reading import RunRecord
from tests.study.tasks import PLAN, SWEEP, Known, Raising, digits, runs, study, wait_for_mirror
from tests.tracking.store import Store

# --- before anything is trained ---------------------------------------------------------------------------


class Vigilant:
    """Digits, which must not be trained: a batch may be looked at, without gradients."""

    def __init__(self) -> None:
        self.trained = 0

    def task(self) -> Task:
        return replace(digits(), loss=self._loss)

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.trained += torch.is_grad_enabled()
        return nn.functional.cross_entropy(outputs, targets)


def unseeded() -> nn.Module:
    """A model whose weights come from nowhere that is seeded."""
    net: nn.Module = digits().model()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=_FRESH))
    return net


_FRESH = torch.Generator()
_SAME = digits().model()


def no_number(outputs: Tensor, targets: Tensor) -> Any:
    return "high"


def two_numbers(outputs: Tensor, targets: Tensor) -> Any:
    return outputs.mean(dim=0)


def unbound(trial: Trial, dropout: float) -> None:
    raise AssertionError("it was trained")


def undefined(outputs: Tensor, targets: Tensor) -> Any:
    raise ValueError("one class")


def derivative(model: nn.Module, batch: Any) -> Any:
    outputs = model(batch[0].requires_grad_())
    return torch.autograd.grad(outputs.sum(), batch[0], create_graph=True)[0].square().mean()


def in_train_mode_only(model: nn.Module, batch: Any) -> Any:
    outputs: Any = {"loss": model(batch[0]).mean()} if model.training else [model(batch[0])]
    return sum(outputs.values())


def changed(**parts: Any) -> Callable[[Task], Task]:
    return lambda task: replace(task, **parts)


def family(**settings: Any) -> dict[str, Any]:
    return {"plan": {**PLAN, "decay": {"families": ["constant", settings]}}}


def same(task: Task) -> Task:
    return task


BAD: dict[str, tuple[Callable[[Task], Any], dict[str, Any], str]] = {
    # what, then which value is named, the problem and the mend
    "no-val-loader": (
        changed(val_loader=None, metrics={}),
        {},
        r"val_loader=None: is missing, and the objective val/loss needs it; .*train/loss",
    ),
    "unknown-objective": (
        same,
        {"objective": "val/f1"},
        r"objective.metric='val/f1': is reported by no trial; choose from .*val/accuracy",
    ),
    "unknown-direction": (
        same,
        {"objective": {"metric": "val/loss", "direction": "down"}},
        r"objective.direction='down': .*; choose 'minimize' or 'maximize'",
    ),
    "direction-not-known": (
        changed(metrics={"bce": no_number}),
        {"objective": "val/bce"},
        r"objective.direction=None: the name 'val/bce' does not say .*; give direction='minimize' or 'max",
    ),
    "two-directions": (
        same,
        {"objective": {"metric": "val/loss", "direction": "minimize"}, "direction": "maximize"},
        r"direction='maximize': is given beside .*'minimize'; give one",
    ),
    "direction-is-no-direction": (
        same,
        {"direction": "up"},
        r"objective.direction='up': .*; choose 'minimize' or 'maximize'",
    ),
    "plateau-against-the-objective": (
        same,
        {"objective": "val/accuracy", **family(name="plateau", mode="min")},
        r"plateau.mode='min': the objective is to maximize val/accuracy; leave it out, or give 'max'",
    ),
    "metric-with-a-name-that-mlflow-refuses": (
        lambda task: replace(task, metrics={"acc@5": no_number}),
        {},
        r"Task.metrics='acc@5': is no name that MLflow takes; choose letters",
    ),
    "argument-is-nan": (
        changed(arguments={"width": 3, "dropout": float("nan")}),
        {},
        r"arguments\['dropout'\]=nan: cannot be recorded.*; give finite numbers",
    ),
    "argument-holds-infinity": (
        changed(arguments={"clip": [1.0, {"most": float("inf")}]}),
        {},
        r"arguments\['clip'\]=.*: cannot be recorded.*; give finite numbers",
    ),
    "keyword-is-nan": (
        lambda task: partial(unbound, dropout=float("nan")),
        {"epochs": None, "steps": 40},
        r"arguments\['dropout'\]=nan: cannot be recorded.*; give finite numbers",
    ),
    "argument-with-a-name-that-mlflow-refuses": (
        changed(arguments={"a=b": 1}),
        {},
        r"arguments='a=b': is no name that MLflow takes; choose letters",
    ),
    "metric-is-text": (
        changed(metrics={"accuracy": no_number}),
        {},
        r"metrics\['accuracy'\]='high': is no number.*; give a number",
    ),
    "metric-is-a-vector": (
        changed(metrics={"accuracy": two_numbers}),
        {},
        r"metrics\['accuracy'\]=.*: is no number.*; give a number",
    ),
    "metric-of-no-batch": (
        changed(metrics={"auc": undefined}),
        {},
        r"metrics\['auc'\]=None: cannot be computed on any batch \(ValueError: one class\); .*lrsearch.whole",
    ),
    "validation-needs-gradients": (
        changed(step=derivative, loss=None, metrics={}),
        {},
        r"val_step=None: is missing, and validation needs gradients .*; hand over Task\(val_step",
    ),
    "validation-fails-in-eval-mode": (
        changed(step=in_train_mode_only, loss=None, metrics={}),
        {},
        r"val_loader='\(float.*\)': validation fails .*AttributeError: .*; .*Task\(val_step",
    ),
    "lazy-model": (
        changed(model=lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10))),
        {},
        r"model='Sequential': 1.weight is not initialised yet; run one batch through it first",
    ),
    "unknown-preset": (same, {"plan": "slow"}, r"plan='slow': is no preset; choose from quick"),
    "no-plan-file": (
        same,
        {"plan": "nowhere.toml"},
        r"plan='nowhere.toml': cannot be read.*; check",
    ),
    "unknown-key": (
        same,
        {"plan": {**PLAN, "bugdet": 9}},
        r"bugdet=9: is unknown; choose from .*budget",
    ),
    "unknown-key-below": (
        same,
        {"plan": {**PLAN, "coarse": {"pionts": 4}}},
        r"coarse.pionts=4: is unknown; choose from points",
    ),
    "zero-budget": (same, {"plan": {**PLAN, "budget": 0}}, r"budget=0: .*; give run-equivalents, above 0"),
    "small-budget": (same, {"plan": {**PLAN, "budget": 3}}, r"budget=3.*: is below the .*; raise it"),
    "budget-is-nan": (
        same,
        {"plan": {**PLAN, "budget": float("nan")}},
        r"budget=nan: .*; give run-equivalents, above 0",
    ),
    "no-families": (
        same,
        {"plan": {**PLAN, "decay": {"families": []}}},
        r"decay.families=(\[\]|\(\)): .*; name at least one schedule",
    ),
    "unknown-family": (same, family(name="cosin"), r"cosin.*; .*cosine"),
    "family-is-the-sweep": (same, family(name="sweep"), r"sweep.*; "),
    "family-parameter-out-of-range": (same, family(name="step", gamma=2.0), r"gamma=2.0: .*; "),
    "unknown-family-parameter": (same, family(name="step", gama=0.1), r"gama.*; .*gamma"),
    "base-schedule-out-of-range": (
        same,
        {"plan": {**PLAN, "base_schedule": {"name": "wsd", "cooldown": 3.0}}},
        r"cooldown=3.0: .*; ",
    ),
    "name-is-no-file-name": (same, {"name": "a/b"}, r"name='a/b': .*; "),
    "name-is-empty": (same, {"name": ""}, r"name='': .*; "),
    "name-leads-out": (same, {"name": ".."}, r"name='..': .*; "),
    "other-model-each-time": (
        changed(model=unseeded),
        {},
        r"Task.model=.*: makes another model each time from one seed.*; draw its random numbers",
    ),
    "trained-model": (
        changed(model=lambda: _SAME),
        {},
        r"Task.model=.*: returns the weights that were trained before; make a new model",
    ),
    "epochs-and-steps": (same, {"epochs": 2, "steps": 90}, r"steps=90: is given beside epochs=2; give one"),
    "no-epochs": (same, {"epochs": 0}, r"epochs=0: .*; give a whole number"),
    "seed-below-zero": (same, {"seed": -1}, r"seed=-1: .*; give a whole number"),
    "unknown-device": (same, {"device": "gpu"}, r"device='gpu': .*; use cpu"),
    "no-task": (lambda task: 3, {}, r"task=3: is no task; hand over an lrsearch.Task"),
    "model-as-task": (lambda task: _SAME, {}, r"task=.*: is no task; hand over an lrsearch.Task"),
    "function-returns-no-task": (
        lambda task: lambda: 3,
        {},
        r"task=.*: returned an int when .*; return an",
    ),
    "no-batches": (changed(train_loader=[]), {}, r"loader.*; "),
    "generator": (
        changed(train_loader=(batch for batch in [(torch.ones(1, 64), torch.zeros(1))])),
        {"epochs": None, "steps": 40},
        r"loader.*generator.*; ",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_trained(case: str, home: Path) -> None:
    change, arguments, said = BAD[case]
    vigilant = Vigilant()
    with pytest.raises(InputError) as raised:
        study(change(vigilant.task()), **{"name": "bad", **arguments})
    message = str(raised.value)
    assert "\n" not in message
    assert re.search(said, message), message
    assert vigilant.trained == 0
    assert not home.exists() or not list(home.iterdir())


def test_a_name_that_exists_says_how_to_resume_or_rename(home: Path) -> None:
    (home / "taken" / "journal").mkdir(parents=True)
    with pytest.raises(InputError, match=r"name='taken': .*resume.*another name"):
        study(digits(), "taken")
    assert [path.name for path in (home / "taken").iterdir()] == ["journal"]


def test_a_task_that_raises_when_made_is_let_through(home: Path) -> None:
    """It is the person's own error, with their own traceback."""

    def task() -> Task:
        raise FileNotFoundError("no data here")

    with pytest.raises(FileNotFoundError, match="no data here"):
        study(task, "bad")
    assert not home.exists()


# --- when the coarse stage has nothing to go on -----------------------------------------------------------


def always_rising(trial: Trial) -> None:
    loop(trial, lambda step: 2.0 + step / 10)


def always_the_same(trial: Trial) -> None:
    loop(trial, lambda step: 2.0)


def loop(trial: Trial, loss: Callable[[int], float]) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=trial.lr)
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps + 1):
        optimizer.step()
        scheduler.step()
        trial.report(step, train_loss=loss(step))
    trial.report(trial.steps, val_loss=loss(trial.steps))


def unmoved() -> Task:
    """A task whose loss does not depend on its model."""
    return replace(digits(), loss=lambda outputs, targets: 0.0 * outputs.sum() + 1.0, metrics={})


def exploding() -> Task:
    """A task whose loss is infinite whatever the lr, but for the untrained model."""
    calls = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        grown = nn.functional.cross_entropy(outputs, targets)
        return grown * 10.0 ** (calls % 50) if torch.is_grad_enabled() else grown

    return replace(digits(), loss=loss)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (always_rising, r"every lr from .* to 0\.01 diverged"),
        (exploding(), r"every lr from .* diverged"),
        (always_the_same, r"every lr from .* to 0\.01 gave the same val/loss, 2"),
        (unmoved(), r"every lr from .* to 0\.01 gave the same val/loss, 1"),
    ],
    ids=["loop-diverges", "task-diverges", "loop-unmoved", "task-unmoved"],
)
def test_a_grid_that_says_nothing_ends_the_study_as_failed(task: Any, said: str, home: Path) -> None:
    with pytest.raises(StudyError, match=said) as raised:
        study(task, "hopeless")
    assert "\n" not in str(raised.value)
    recorded = by_name(home / "hopeless")
    assert ending(recorded["hopeless"]) == "FAILED"
    assert {ending(run) for name, run in recorded.items() if name != "hopeless"} == {"FINISHED"}
    assert not [name for name in recorded if name.startswith(("fine", "decay", "confirm"))]


def by_name(path: Path) -> dict[str, RunRecord]:
    return {run.start.name: run for run in runs(StudyFolder(path))}


def ending(run: RunRecord) -> str | None:
    return run.end.status if run.end else None


def test_an_own_loop_that_never_reports_the_objective_is_told_so(home: Path) -> None:
    def silent(trial: Trial) -> None:
        def keep(step: SupportsIndex, **metrics: Any) -> None:
            metrics.pop("val_loss", None)
            if metrics:
                report(step, **metrics)

        report, trial.report = trial.report, keep  # type: ignore[method-assign]
        Known()(trial)

    with pytest.raises(StudyError, match=r"val/loss is the objective and was never reported") as raised:
        study(silent, "silent")
    assert "train/loss" in str(raised.value)
    assert ending(by_name(home / "silent")["silent"]) == "FAILED"


# --- trials that raise ------------------------------------------------------------------------------------


class BrokenError(Exception):
    """What a user's code may raise."""


class Nth:
    """Raises at the tenth batch of some of the trainings; the sweeps, whose lr is 10, are not counted."""

    def __init__(self, which: Container[int], error: BaseException) -> None:
        self.trained = -1
        self._which, self._error = which, error

    def __call__(self, lr: float, calls: int) -> BaseException | None:
        if lr == SWEEP:
            return None
        self.trained += calls == 1
        return self._error if self.trained in self._which and calls == 10 else None


NO_BATCHES = BrokenError("no more batches")
FOUR = {**PLAN, "budget": 12.0, "coarse": {"points": 4, "extensions": 1}}
"""One of its first four trials may raise: that is not a third."""


def test_a_trial_that_raises_is_recorded_and_the_study_goes_on(migrated: Path, home: Path) -> None:
    store = Store(Path(shutil.copy(migrated, "mlflow.db")).absolute())
    task = Raising(Nth([1], NO_BATCHES)).task()
    result = study(task, "raising", plan=FOUR, tracking_uri=store.uri, progress=False)
    (failed,) = [trial for trial in result.stages[1].trials if trial.status == "failed"]
    assert failed.cause == "BrokenError"
    assert "BrokenError" in result.warnings["trials_failed"]

    run = next(r for r in runs(result.folder) if r.start.tags.get("lrsearch.trial_key") == failed.spec.key)
    wait_for_mirror(StudyFolder(home / "raising"))
    error = store.tags(run.start.key)["lrsearch.error"]
    assert "Traceback" in error
    assert "BrokenError: no more batches" in error
    statuses = dict(store.rows("SELECT name, status FROM runs"))
    assert statuses.pop(run.start.name) == "FAILED"
    assert set(statuses.values()) == {"FINISHED"}


def test_a_trial_that_raises_at_the_end_of_the_grid_is_not_asked_for_again() -> None:
    result = study(Raising(Nth([3], NO_BATCHES)).task(), "raising", plan=FOUR)
    keys = [trial.spec.key for trial in result.stages[1].trials]
    assert len(set(keys)) == len(keys)


def test_a_failed_trial_is_not_run_again_by_a_resume(home: Path) -> None:
    nth = Nth([1], NO_BATCHES)
    task = Raising(nth).task()
    result = study(task, "raising", plan=FOUR)
    trained = nth.trained
    (home / "raising" / "result.json").unlink()  # as where the process died just before its end
    assert study(task, "raising", plan=FOUR, resume=True).answer == result.answer
    assert nth.trained == trained


def test_a_stage_of_which_a_third_raises_is_stopped_with_the_reason(home: Path) -> None:
    task = Raising(Nth([0, 1, 2], NO_BATCHES)).task()
    with pytest.raises(StudyError, match=r"stage coarse: .*BrokenError.*no more batches") as raised:
        study(task, "broken")
    assert "\n" not in str(raised.value)
    assert re.search(r"\d of \d trials raised", str(raised.value))
    recorded = by_name(home / "broken")
    assert ending(recorded["broken"]) == "FAILED"
    assert "FAILED" in {ending(run) for name, run in recorded.items() if name.startswith("coarse")}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["accelerator", "cpu"],
)
def test_out_of_memory_is_told_apart(error: BaseException) -> None:
    result = study(Raising(Nth([1], error)).task(), "large", plan=FOUR)
    causes = {trial.cause for trial in result.stages[1].trials if trial.status == "failed"}
    assert causes == {"out_of_memory"}
    assert "out_of_memory" in result.warnings["trials_failed"]


def test_out_of_memory_everywhere_is_the_reason_that_is_given() -> None:
    task = Raising(Nth(range(100), torch.OutOfMemoryError("CUDA out of memory"))).task()
    with pytest.raises(StudyError, match="out_of_memory"):
        study(task, "large")


def test_a_range_test_that_raises_ends_the_study_as_failed(home: Path) -> None:
    task = Raising(lambda lr, calls: NO_BATCHES if calls == 10 else None).task()
    with pytest.raises(BrokenError, match="no more batches"):
        study(task, "broken")
    assert {ending(run) for run in by_name(home / "broken").values()} == {"FAILED"}
