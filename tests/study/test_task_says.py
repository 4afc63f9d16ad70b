"""What a Task says of its training holds in the range test, the search, the record and the code to paste."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

import lrsearch
from lrsearch import InputError, StudyResult, Task
from lrsearch.core.presets import load_plan
from lrsearch.core.trial import TrialResult
from lrsearch.schedules import schedule_from_dict
from lrsearch.study.prepare import changes_asked, prepare
from lrsearch.training.loaders import seed_loaders
from lrsearch.training.random_state import seed_everything
from tests.study.tasks import Ends, digits, interrupt, runs, study, trainings

NOTHING_ASKED: dict[str, Any] = {"epochs": None, "steps": None, "seed": None, "objective": None}
UPDATES: dict[str, Any] = {"accumulate": 2, "clip": 0.5, "precision": "bf16"}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSEARCH_HOME", str(tmp_path_factory.mktemp("said")))
        return study(task(), "said")


def task(**said: Any) -> Task:
    """Digits, its net so small that half precision and a clipped gradient are seen."""
    return replace(digits(), **{**UPDATES, **said})


def endless(task: Task) -> Iterator[Any]:
    while True:
        yield from task.train_loader


def confirmed(result: StudyResult) -> TrialResult:
    return result.trials_of(result.answer.winner)[0]


def test_the_losses_are_those_of_a_plain_loop(said: StudyResult) -> None:
    """Step by step, the same bits: two batches an update, bfloat16, a clipped gradient."""
    trial, plain = confirmed(said), task()
    seed_everything(trial.spec.seed)
    seed_loaders([plain.train_loader, plain.val_loader], trial.spec.seed)
    model = plain.model()
    optimizer = SGD(model.parameters(), lr=trial.spec.lr, momentum=0.9)
    lrs = schedule_from_dict(trial.spec.schedule).curve(trial.spec.lr, trial.spec.steps, 22)
    batches, losses = endless(plain), []
    for lr in lrs:
        optimizer.param_groups[0]["lr"] = float(lr)
        optimizer.zero_grad()
        total = 0.0
        for _ in range(2):
            inputs, targets = next(batches)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(model(inputs), targets)
            (loss / 2).backward()  # type: ignore[no-untyped-call]
            total += loss.item() / 2
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(total)
    steps, recorded = said.points(trial, "train/loss")
    assert steps == [*range(1, 45)]
    assert recorded == pytest.approx(losses, rel=1e-6)


def test_the_pasted_code_trains_as_the_study_did(said: StudyResult) -> None:
    trial, plain = confirmed(said), task()
    seed_everything(trial.spec.seed)
    seed_loaders([plain.train_loader, plain.val_loader], trial.spec.seed)
    model = plain.model()
    names: dict[str, Any] = {
        "model": model,
        "optimizer": SGD(model.parameters(), lr=said.lr, momentum=0.9),
        "loss_function": nn.CrossEntropyLoss(),
    }
    code = said.code()
    exec(code, names)  # the lines are made to be pasted
    assert "lrsearch" not in code
    batches = endless(plain)
    for _ in range(trial.spec.steps):
        names["update"](batches)
        names["scheduler"].step()
    weights = torch.load(said.folder.checkpoints / f"{trial.spec.key}.pt")
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_the_record_has_it_in_every_run(said: StudyResult) -> None:
    trained = [run for run in runs(said.folder) if run.start.kind != "study"]
    assert len(trained) > 3
    for run in trained:
        assert {name: run.start.params[name] for name in UPDATES} == UPDATES, run.start.name
    assert {name: said.config.model_info[name] for name in UPDATES} == UPDATES
    assert said.config.steps_per_epoch == 22
    assert said.config.sweep.accumulate == 2


def test_the_bracket_is_that_of_the_range_test_alone(said: StudyResult) -> None:
    (run,) = (run for run in runs(said.folder) if run.start.kind == "range_test")
    alone = lrsearch.range_test(
        task(), steps=said.config.sweep.steps, repeats=1, tracking=False, progress=False
    )
    assert run.metric("train/loss")[1] == pytest.approx(alone.curves[0].losses.tolist(), rel=0)


def test_an_argument_of_the_range_test_comes_before_what_the_task_says() -> None:
    def losses(task: Task, **arguments: Any) -> list[float]:
        found = lrsearch.range_test(task, steps=30, stop="none", tracking=False, progress=False, **arguments)
        return [float(loss) for loss in found.curves[0].losses]

    said = losses(task())
    assert said == losses(digits(), **UPDATES)
    assert losses(task(), accumulate=1, precision="32") == losses(digits(), clip=0.5) != said


def test_a_study_that_was_cut_short_goes_on_to_the_same_answer(said: StudyResult) -> None:
    with pytest.raises(KeyboardInterrupt):
        study(task(), "cut", progress=Ends("coarse", interrupt, "cut"))
    again = lrsearch.search(task(), "cut", resume=True, progress=False)
    assert trainings(again) == trainings(said)
    assert again.answer == said.answer


def test_a_resume_under_other_terms_is_refused_by_name() -> None:
    with pytest.raises(KeyboardInterrupt):
        study(task(), "terms", progress=Ends("coarse", interrupt, "terms"))
    with pytest.raises(InputError, match=r"model_info\.clip=1\.0: the study was begun with 0\.5"):
        lrsearch.search(task(clip=1.0), "terms", resume=True, progress=False)


def test_a_winner_is_reproduced_under_its_terms(said: StudyResult) -> None:
    again = lrsearch.reproduce(str(said.folder.path), task())
    assert again.verdict == "identical"
    assert not [name for name in again.changes if name.startswith("model_info")]
    other = lrsearch.reproduce(str(said.folder.path), task(precision="32"))
    assert other.verdict != "identical"
    assert other.changes["model_info.precision"] == ("bf16", None)


def test_float16_on_a_cpu_is_refused_before_anything_is_trained() -> None:
    for ask in (
        lambda: study(task(precision="16"), "half"),
        lambda: lrsearch.range_test(task(precision="16"), device="cpu", tracking=False),
    ):
        with pytest.raises(InputError, match=r"precision='16': float16 on a CPU .*; use precision='bf16'"):
            ask()


def test_an_optimizer_may_take_the_model_and_a_group_that_keeps_its_lr_is_said() -> None:
    """The head is searched, the backbone keeps its lr."""

    def optimizer(model: nn.Sequential, lr: float) -> Optimizer:
        backbone, head = model[0], model[2]
        groups = [{"params": backbone.parameters(), "lr": 1e-3}, {"params": head.parameters(), "lr": lr}]
        return SGD(groups, momentum=0.9)

    with pytest.warns(UserWarning, match="param group 0 is not in proportion to the lr"):
        result = study(replace(digits(), optimizer=optimizer), "head")
    assert 1e-3 < result.lr < 10
    (run,) = (run for run in runs(result.folder) if run.start.kind == "range_test")
    assert np.ptp(run.metric("lr")[1]) > 1
    assert result.config.model_info["unscaled_groups"] == [0]


def test_the_task_says_how_long_it_trains_where_nobody_else_does() -> None:
    for given, asked, plan, steps in (
        ({"steps": 30}, {}, {}, 30),
        ({"epochs": 2}, {}, {}, 44),
        ({"steps": 30}, {"epochs": 1}, {}, 22),
        ({"steps": 30}, {}, {"steps": 40}, 40),
        ({}, {}, {}, 110),
    ):
        chosen = load_plan(plan).with_changes(**changes_asked(**{**NOTHING_ASKED, **asked}))
        assert prepare(task(**given), chosen, "cpu").config.total_steps == steps
