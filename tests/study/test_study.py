"""A whole study as a person sees it: its answer, its folder, and what stands in MLflow and in Optuna."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import nn

import lrsearch
from lrsearch import InputError, StudyResult, Trial
from lrsearch.core.findings import CoarseFindings, SweepFindings
from lrsearch.core.presets import load_plan
from lrsearch.core.study_plan import STAGES
from lrsearch.errors import StudyError
from lrsearch.study.prepare import with_whole_schedules
from lrsearch.tracking.reading import RunRecord
from lrsearch.training.run_trial import evaluate
from lrsearch.training.task import Task
from tests.study.tasks import PLAN, Known, digits, rows, runs, study, trainings
from tests.tracking.store import Store

SEED = 3
STEPS = 90  # two epochs of digits
WHOLE = {**PLAN, "budget": 13.0, "baseline": True, "confirm": {"seeds": 2, "max_seeds": 2}}


@dataclass(frozen=True)
class Studied:
    """A study with everything, on a store of its own, and the same without MLflow under another name."""

    task: Task
    result: StudyResult
    again: StudyResult
    store: Store

    @property
    def runs(self) -> dict[str, RunRecord]:
        return {run.start.name: run for run in runs(self.result.folder)}

    @property
    def trials(self) -> list[RunRecord]:
        return [run for run in self.runs.values() if run.start.tags.get("lrsearch.trial_key")]

    @property
    def parent(self) -> str:
        assert self.result.key is not None
        return self.result.key


@pytest.fixture(scope="module")
def studied(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Studied:
    place = tmp_path_factory.mktemp("studied")
    store = Store(Path(shutil.copy(migrated, place / "mlflow.db")))
    task = digits()
    task = replace(task, test_loader=task.val_loader, arguments={"hidden": 16})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSEARCH_HOME", str(place / "home"))
        result = study(
            task, "one", seed=SEED, plan=WHOLE, tracking_uri=store.uri, progress=False, tags={"team": "a"}
        )
        again = study(task, "two", seed=SEED, plan=WHOLE)
        assert result.wait(120)
    return Studied(task, result, again, store)


# --- the same again ---------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_trials(studied: Studied) -> None:
    assert trainings(studied.again) == trainings(studied.result)
    assert len(trainings(studied.result)) >= 8


def test_the_same_seed_gives_the_same_answer(studied: Studied) -> None:
    assert studied.again.answer == studied.result.answer
    assert [s.found for s in studied.again.stages] == [s.found for s in studied.result.stages]


def test_another_seed_gives_other_trials(studied: Studied) -> None:
    other = study(studied.task, "three", seed=SEED + 1, plan=WHOLE)
    values = studied.result.trials["objective"].tolist()
    assert not set(values) & set(other.trials["objective"].tolist())


def test_load_gives_an_equal_answer(studied: Studied) -> None:
    loaded = lrsearch.load(str(studied.result.folder.path))
    assert loaded == studied.result
    assert loaded.to_dict() == studied.result.to_dict()


# --- in MLflow --------------------------------------------------------------------------------------------


def test_one_parent_has_flat_children(studied: Studied) -> None:
    store = studied.store
    parents = dict(
        store.rows(
            "SELECT runs.name, tags.value FROM runs LEFT JOIN tags "
            "ON tags.run_uuid = runs.run_uuid AND tags.key = 'mlflow.parentRunId'"
        )
    )
    assert parents.pop("one") is None
    assert set(parents) == studied.runs.keys() - {"one"}
    assert set(parents.values()) == {store.run_id(studied.parent)}
    assert len(studied.trials) == len(trainings(studied.result))


def test_every_run_has_ended_as_it_did(studied: Studied) -> None:
    assert set(studied.store.rows("SELECT status FROM runs")) == {("FINISHED",)}
    assert studied.store.rows("SELECT count(*) FROM runs WHERE end_time IS NULL") == [(0,)]


def test_the_params_of_a_trial_say_what_was_trained(studied: Studied) -> None:
    shown = {
        (p["stage"], p["trial"], p["lr"], p["schedule"], p["seed"], p["steps"], p["epochs"])
        for p in (studied.store.params(run.start.key) for run in studied.trials)
    }
    expected = {
        (row.stage, str(row.trial), str(row.lr), row.schedule, str(row.seed), str(row.steps), "2")
        for row in rows(studied.result)
    }
    assert shown == expected


def test_the_params_of_a_trial_say_how_it_was_made(studied: Studied) -> None:
    expected = {"task": "digits", "optimizer": "SGD", "momentum": "0.9", "batch_size": "32", "hidden": "16"}
    for run in studied.trials:
        if not run.start.name.startswith("confirm"):
            assert studied.store.params(run.start.key).items() >= expected.items()


def test_every_step_of_a_trial_is_a_point(studied: Studied) -> None:
    steps = list(range(1, STEPS + 1))
    for run in studied.trials:
        for metric in ("train/loss", "lr"):
            assert [p[0] for p in studied.store.points(run.start.key, metric)] == steps, run.start.name
        for metric in ("val/loss", "val/accuracy", "epoch"):
            shown = [p[0] for p in studied.store.points(run.start.key, metric)]
            assert shown == [0, 45, STEPS], run.start.name


def test_the_lr_of_a_decayed_trial_is_its_schedule(studied: Studied) -> None:
    run = next(r for r in studied.trials if r.start.params["schedule"] == "linear")
    shown = [p[1] for p in studied.store.points(run.start.key, "lr")]
    peak = float(str(run.start.params["lr"]))
    assert shown == pytest.approx([peak * (1 - k / STEPS) for k in range(STEPS)])


def test_the_objective_of_a_trial_is_its_last_validation(studied: Studied) -> None:
    shown = {}
    for run in studied.trials:
        ((_, objective, _),) = studied.store.points(run.start.key, "objective")
        assert objective == studied.store.points(run.start.key, "val/loss")[-1][1]
        shown[run.start.params["stage"], run.start.params["trial"]] = objective
    assert shown == {(row.stage, row.trial): row.objective for row in rows(studied.result)}


def test_the_parent_shows_the_answer(studied: Studied) -> None:
    params = studied.store.params(studied.parent)
    result = studied.result
    expected = {
        "task": "digits",
        "optimizer": "SGD",
        "batch_size": "32",
        "objective": "val/loss",
        "direction": "minimize",
        "lr": str(result.lr),
        "schedule": result.schedule.name,
    }
    assert params.items() >= expected.items()
    assert "model" in params


def test_the_parent_shows_its_summaries(studied: Studied) -> None:
    result = studied.result
    names = (
        *("best_lr", "best_objective", "interval_low", "interval_high", "gain_over_constant"),
        *("noise", "diverged_trials", "cost_run_equivalents"),
    )
    shown = {name: [p[1] for p in studied.store.points(studied.parent, name)] for name in names}
    gain = result.answer.gain_over_constant
    assert shown == {
        "best_lr": [result.lr],
        "best_objective": [result.answer.objective],
        "interval_low": [result.interval.low],
        "interval_high": [result.interval.high],
        "gain_over_constant": [0.0 if gain is None else gain.mean],
        "noise": [result.noise],
        "diverged_trials": [float((result.trials["status"] == "diverged").sum())],
        "cost_run_equivalents": [result.cost],
    }


def test_the_tags_say_what_a_run_is(studied: Studied) -> None:
    for run in studied.runs.values():
        tags = studied.store.tags(run.start.key)
        assert tags["lrsearch.study"] == "one"
        assert tags["team"] == "a"
        assert {"lrsearch.kind", "lrsearch.key", "mlflow.user", "mlflow.source.name"} <= tags.keys()
    assert studied.store.tags(studied.parent)["lrsearch.kind"] == "study"
    stages = {studied.store.tags(run.start.key)["lrsearch.stage"] for run in studied.trials}
    assert stages == {"coarse", "decay", "confirm"}


def test_the_winner_alone_is_tagged(studied: Studied) -> None:
    keys = {t.spec.key for t in studied.result.trials_of(studied.result.answer.winner)}
    winners = {
        run.start.tags["lrsearch.trial_key"]
        for run in studied.trials
        if studied.store.tags(run.start.key).get("lrsearch.winner") == "true"
    }
    assert winners == keys
    assert len(keys) == 2  # its two seeds


def test_the_description_is_the_answer(studied: Studied) -> None:
    text = studied.store.tags(studied.parent)["mlflow.note.content"]
    assert f"{studied.result.lr:.3g}" in text
    assert studied.result.schedule.name in text


def test_the_data_are_inputs_of_the_parent(studied: Studied) -> None:
    query = """
        SELECT input_tags.value FROM inputs JOIN input_tags USING (input_uuid)
        WHERE destination_id = ? AND input_tags.name = 'mlflow.data.context'
    """
    shown = studied.store.rows(query, studied.store.run_id(studied.parent))
    assert sorted(shown) == [("train",), ("val",)]


def test_the_parent_has_its_files(studied: Studied) -> None:
    place = studied.store.artifacts(studied.parent)
    found = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert {"plan.json", "result.json", "trials.csv"} <= found
    plots = [name for name in found if name.startswith("plots/") and name.endswith(".png")]
    assert len(plots) >= 2
    for name in plots:
        assert (place / name).read_bytes().startswith(b"\x89PNG")
    table = list(csv.DictReader((place / "trials.csv").read_text().splitlines()))
    assert [float(row["lr"]) for row in table] == studied.result.trials["lr"].tolist()
    assert json.loads((place / "result.json").read_text())["answer"]["lr"] == studied.result.lr
    assert json.loads((place / "plan.json").read_text())["plan"]["seed"] == SEED


@pytest.mark.parametrize("which", ["winner", "constant"])
def test_the_weights_give_the_recorded_loss(studied: Studied, which: str) -> None:
    finalist = getattr(studied.result.answer, which)
    kept = {}
    for trial in studied.result.trials_of(finalist):
        run = next(r for r in studied.trials if r.start.tags["lrsearch.trial_key"] == trial.spec.key)
        for path in studied.store.artifacts(run.start.key).rglob("*.pt"):
            kept[path] = trial
    ((path, trial),) = kept.items()
    state = torch.load(path, weights_only=True)
    model = studied.task.model()
    model.load_state_dict(state)
    val = replace(studied.task, test_loader=studied.task.val_loader)
    measured = evaluate(val, path, torch.device("cpu"))["test/loss"]
    assert measured == trial.metrics["val/loss"].final
    assert all(isinstance(value, torch.Tensor) for value in state.values())


# --- in Optuna --------------------------------------------------------------------------------------------


def test_optuna_has_a_study_a_stage(studied: Studied) -> None:
    storage = f"sqlite:///{studied.result.folder.optuna_db}"
    counts = {summary.study_name: summary.n_trials for summary in optuna.get_all_study_summaries(storage)}
    trials = studied.result.trials.groupby("stage").size().to_dict()
    assert {name.split("/")[-1]: n for name, n in counts.items() if n} == trials


def test_every_trial_is_in_optuna_with_value_and_constraint(studied: Studied) -> None:
    storage = f"sqlite:///{studied.result.folder.optuna_db}"
    shown = []
    for name in ("coarse", "decay", "confirm"):
        loaded = optuna.load_study(study_name=f"one/{name}", storage=storage)
        for trial in loaded.trials:
            assert trial.state == TrialState.COMPLETE
            assert trial.constraints == {"diverged": -1.0}
            shown.append((trial.params["lr"], trial.params["schedule"], trial.params["seed"], trial.value))
    expected = [(row.lr, row.schedule, row.seed, row.objective) for row in rows(studied.result)]
    assert shown == expected


def test_optuna_knows_where_a_study_comes_from(studied: Studied) -> None:
    storage = f"sqlite:///{studied.result.folder.optuna_db}"
    attributes = {s.study_name.split("/")[1]: s.user_attrs for s in optuna.get_all_study_summaries(storage)}
    assert attributes["confirm"]["lrsearch.previous_stage"] == "one/decay"
    assert attributes["confirm"]["lrsearch.plan"] == studied.result.config.plan.hash


# --- the answer -------------------------------------------------------------------------------------------


def test_the_test_data_are_read_for_winner_and_constant(studied: Studied) -> None:
    answer = studied.result.answer
    assert answer.test.keys() == {"winner", "constant"}
    for label, finalist in (("winner", answer.winner), ("constant", answer.constant)):
        assert finalist is not None
        # The test data are the validation data here, so that the recorded loss is what is to be read.
        first = studied.result.trials_of(finalist)[0]
        assert answer.test[label] == {
            "test/loss": first.metrics["val/loss"].final,
            "test/accuracy": pytest.approx(first.metrics["val/accuracy"].final, rel=1e-6),
        }


def test_the_cost_is_what_was_trained(studied: Studied) -> None:
    result = studied.result
    sweeps = sum(len(run.metric("lr")[0]) for name, run in studied.runs.items() if "range-test" in name)
    assert result.cost == pytest.approx((result.trials["steps_done"].sum() + sweeps) / STEPS)
    assert result.cost <= result.config.plan.budget
    assert [stage.stage for stage in result.stages] == list(STAGES)


def test_the_baseline_is_one_trial_of_adam(studied: Studied) -> None:
    (row,) = [row for row in rows(studied.result) if row.optimizer == "adam"]
    assert (row.stage, row.lr, row.schedule) == ("confirm", 1e-3, "constant")
    gain = studied.result.answer.gain_over_baseline
    assert gain == row.objective - studied.result.answer.winner.objectives[row.seed]


@pytest.mark.parametrize(
    ("preset", "plan"),
    [
        ("default", {"range_test": {"max_lr": 1e-2}, "coarse": {"extensions": 5}}),
        ("default", {"proxy": 0.3}),
        ("quick", {"range_test": {"max_lr": 1e-6}}),
    ],
    ids=["extensions", "proxy", "no-bracket"],
)
def test_no_study_costs_more_than_its_budget(preset: str, plan: dict[str, Any]) -> None:
    result = study(Known(gain=0.05, shift=4.0), "costly", plan={"preset": preset, **plan})
    assert result.cost <= result.config.plan.budget


def test_without_a_bracket_the_lr_is_near_the_best_of_the_grid() -> None:
    plan = {**PLAN, "budget": 14.0, "range_test": {"max_lr": 1e-6}}
    result = study(digits(), "blind", epochs=1, plan=plan)
    assert "no_bracket" in result.warnings
    tried = {row.objective: row.lr for row in rows(result) if row.stage == "coarse"}
    assert isinstance(result.stages[1].found, CoarseFindings)
    assert abs(math.log10(result.stages[1].found.lr / tried[min(tried)])) < 1


def test_the_code_runs_with_torch_alone(studied: Studied) -> None:
    result = studied.result
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=result.lr)
    code = result.code()
    assert "lrsearch" not in code
    names: dict[str, Any] = {"torch": torch, "optimizer": optimizer}
    exec(code, names)  # the lines are made to be pasted
    scheduler = names["scheduler"]
    used = []
    for _ in range(STEPS):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert used == pytest.approx(result.schedule.curve(result.lr, STEPS, 45).tolist())


# --- whose lr it is ---------------------------------------------------------------------------------------


def in_groups(shares: Sequence[float], order: int = 1) -> Task:
    """Digits, whose layers have these shares of the lr, in a param group each."""

    def optimizer(parameters: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        layers = zip(*[iter(parameters)] * 2, strict=True)
        groups = [{"params": layer, "lr": share * lr} for layer, share in zip(layers, shares, strict=True)]
        return torch.optim.SGD(groups[::order], momentum=0.9)

    return replace(digits(), optimizer=optimizer)


def test_the_answer_is_in_units_of_what_the_factory_is_given_whatever_group_comes_first() -> None:
    """Its lrs are those that were tried, also of the range test."""
    one, other = (study(in_groups((0.01, 1.0), order), f"order{order}") for order in (1, -1))
    assert trainings(one) == trainings(other)
    assert one.answer == other.answer
    assert one.stages[0].found == other.stages[0].found
    assert isinstance(one.stages[0].found, SweepFindings)
    assert one.stages[0].found.bracket is not None
    recorded = [run for run in runs(one.folder) if run.start.tags.get("lrsearch.trial_key")]
    assert recorded
    for run in recorded:
        lr = run.start.params["lr"]
        assert isinstance(lr, float)
        assert 0.5 * lr < max(run.metric("lr")[1]) <= lr * (1 + 1e-9)


def test_a_group_that_keeps_its_lr_is_said_before_anything_is_trained() -> None:
    def optimizer(parameters: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        *others, bias = parameters
        return torch.optim.SGD([{"params": others, "lr": lr}, {"params": [bias], "lr": 0.01}])

    with pytest.warns(UserWarning, match="gives param group 1 is not in proportion"):
        result = study(replace(digits(), optimizer=optimizer), "fixed", epochs=1)
    assert result.config.model_info["unscaled_groups"] == [1]


def test_a_loop_that_trains_at_no_lr_but_its_own_is_refused() -> None:
    """It reads trial.lr for its log and trains at another: one training alone cannot show that."""

    def heedless(trial: Trial) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1 + 0 * trial.lr)
        scheduler = trial.schedule.build(optimizer, trial.steps)
        for step in range(1, trial.steps + 1):
            optimizer.step()
            scheduler.step()
            trial.report(step, train_loss=1.0 / step)
        trial.report(trial.steps, val_loss=0.5)

    with pytest.raises(InputError, match=r"same lr at every trial\.lr: 0\.1; make it with trial\.lr"):
        study(heedless, "heedless-lr")


def test_a_model_that_is_not_the_one_that_is_evaluated_is_asked_after() -> None:
    def heedless(trial: Trial) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=trial.lr)
        scheduler = trial.schedule.build(optimizer, trial.steps)
        for step in range(1, trial.steps + 1):
            optimizer.step()
            scheduler.step()
            trial.report(step, train_loss=1.0 / step)
        trial.report(trial.steps, val_loss=0.5)

    with pytest.raises(StudyError, match=r"gave the same val/loss, 0\.5: .* made with the trial's lr"):
        study(heedless, "heedless")


# --- whether decay helps ----------------------------------------------------------------------------------

BIG = {**PLAN, "budget": 20.0, "confirm": {"seeds": 2, "max_seeds": 4, "candidates": 2}}


@pytest.mark.parametrize("first_validation", [True, False])
def test_where_decay_does_not_help_the_answer_is_constant(first_validation: bool) -> None:
    task = Known(gain=0.0, shift=1.0, first_validation=first_validation)
    result = study(task, "flat", plan=BIG)
    assert result.schedule.name == "constant"
    assert abs(math.log2(result.lr / 0.1)) < 1
    assert result.answer.gain_over_constant is None
    assert not result.answer.undecided


def test_where_decay_helps_the_answer_has_it_and_a_higher_lr() -> None:
    result = study(Known(gain=0.1, shift=4.0), "helps", plan=BIG)
    base = result.answer.constant
    assert result.schedule.name == "linear"
    assert base is not None
    assert abs(math.log2(base.lr / 0.1)) < 1
    assert abs(math.log2(result.lr / 0.4)) <= 1
    gain = result.answer.gain_over_constant
    assert gain is not None
    assert gain.mean == pytest.approx(0.1, abs=0.03)


def test_a_metric_to_be_maximised_gives_the_same_answer_as_its_negative() -> None:
    down = study(Known(gain=0.1, shift=4.0, first_validation=True), "down", plan=BIG)
    up = study(
        Known(gain=0.1, shift=4.0, first_validation=True, sign=-1),
        "up",
        plan=BIG,
        objective={"metric": "val/loss", "direction": "maximize"},
    )
    assert (up.lr, up.answer.schedule, up.interval) == (down.lr, down.answer.schedule, down.interval)
    assert up.answer.objective == -down.answer.objective


ACCURACY = {"metric": "val/accuracy"}
PLATEAU = {"name": "plateau", "patience": 0.3}


@pytest.mark.parametrize(
    ("objective", "mode"),
    [(ACCURACY, "max"), ({}, "min"), ({"metric": "val/x", "direction": "maximize"}, "max")],
)
def test_a_plateau_reads_the_objective_in_its_direction(objective: dict[str, Any], mode: str) -> None:
    behind = {"name": "warmup", "inner": PLATEAU}
    plan = load_plan(
        {"objective": objective, "base_schedule": behind, "decay": {"families": [PLATEAU, behind]}}
    )
    whole = with_whole_schedules(plan, 100, 10)
    first, second = whole.decay.families
    assert [whole.base_schedule["inner"]["mode"], first["mode"], second["inner"]["mode"]] == [mode] * 3
    assert with_whole_schedules(whole, 100, 10) == whole  # as a resume does


def test_the_lr_stays_up_while_the_accuracy_rises() -> None:
    plan = {**PLAN, "base_schedule": PLATEAU, "decay": {"families": [PLATEAU]}}
    result = study(digits(), "plateau", epochs=4, plan=plan, objective=ACCURACY)
    rising = 0
    for run in runs(result.folder):
        if run.start.params.get("schedule") != "plateau":
            continue
        (_, lrs), (_, accuracies) = run.metric("lr"), run.metric("val/accuracy")
        if all(before < after for before, after in pairwise(accuracies)):
            assert set(lrs) == {lrs[0]}, run.start.name
            rising += 1
    assert rising > 1
    assert "ReduceLROnPlateau(optimizer, mode='max'" in result.code()


# --- loops of one's own that leave something out ----------------------------------------------------------


def never_reports(trial: Trial) -> None:
    pass


def ignores_the_schedule(trial: Trial) -> None:
    for step in range(1, trial.steps + 1):
        trial.report(step, train_loss=1.0 / step)


def trains_at_another_lr(trial: Trial) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=trial.lr / 3)
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps + 1):
        optimizer.step()
        scheduler.step()
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        trial.report(step, train_loss=1.0 / step)


def never_steps_the_scheduler(trial: Trial) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=trial.lr)
    trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps + 1):
        optimizer.step()
        trial.report(step, train_loss=1.0 / step)


def stops_half_way(trial: Trial) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=trial.lr)
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps // 2):
        optimizer.step()
        scheduler.step()
        trial.report(step, train_loss=1.0 / step)


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize(
    ("loop", "said"),
    [
        (never_reports, "never reported"),
        (ignores_the_schedule, "did not build the trial's schedule"),
        (trains_at_another_lr, "not the schedule's"),
        (never_steps_the_scheduler, "not the schedule's"),
        (stops_half_way, "its last report was of step"),
    ],
)
def test_what_an_own_loop_leaves_out_is_found_and_said(loop: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        study(loop, "own")
    assert "\n" not in str(raised.value)


def test_a_schedule_that_is_left_out_later_is_a_warning() -> None:
    """It heeds the sweep and trains at a constant lr whatever it is told."""
    known = Known()

    def heedless(trial: Trial) -> None:
        if trial.schedule.name in ("sweep", "constant"):
            known(trial)
            return
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=trial.lr)
        for step in range(1, trial.steps + 1):
            optimizer.step()
            trial.report(step, train_loss=2.0 - step / 100)
        trial.report(trial.steps, val_loss=known.final([trial.lr], trial.seed))

    result = study(heedless, "heedless")
    assert "did not build the trial's schedule" in result.warnings["own_loop"]


POINTS = torch.linspace(0, 3, 40).reshape(-1, 1)


class ByName:
    """Data that are keyed by names."""

    def __getitem__(self, name: str) -> Any:
        return {"points": POINTS}[name]

    def __len__(self) -> int:
        return 1


class Named(list[Any]):
    """Batches that know where they are from."""

    dataset = ByName()


def residual(model: nn.Module, points: Any) -> Any:
    """That of u' = -u with u(0) = 1."""
    x = points.clone().requires_grad_()
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    return (slope + u).square().mean() + (model(torch.zeros(1, 1)) - 1).square().mean()


def test_one_full_batch_with_a_loss_of_derivatives_and_data_without_a_fingerprint(tmp_path: Path) -> None:
    task = Task(
        model=lambda: nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)),
        optimizer=lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
        train_loader=Named([POINTS]),
        val_loader=[POINTS],
        step=residual,
        val_step=residual,
    )
    result = study(task, "physics", epochs=None, steps=100)
    assert 1e-3 < result.lr < 1.0
    assert "trials_failed" not in result.warnings
    assert result.config.data["train"]["fingerprint"] is None
    assert "KeyError: 0" in result.report(tmp_path / "report.html").read_text()
