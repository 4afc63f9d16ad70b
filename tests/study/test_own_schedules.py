"""Schedules of one's own in whole studies: planned, trained, recorded, resumed, reported, pasted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import lrsearch
from lrsearch import InputError, StudyResult
from lrsearch.schedules import register, registry
from lrsearch.schedules.base import FloatArray
from lrsearch.testing import PEAKS, ScheduleSuite, make_optimizer, play
from lrsearch.tracking.folder import find_folder
from tests.schedules.own import InverseRoot
from tests.study.tasks import PLAN, Ends, Known, interrupt, runs, study


def falling(fraction: float) -> float:
    """A plain function of the fraction."""
    return 1 - 0.9 * fraction


OWN = ["constant", "falling", {"name": "inverse_root", "sharpness": 24.0}]
WITH_OWN: dict[str, Any] = {**PLAN, "decay": {"families": OWN}}


@pytest.fixture
def own() -> None:
    """Two families of one's own are known."""
    register(falling, after="constant")
    register(InverseRoot)


def forget() -> None:
    """As in a process that never heard of them."""
    for name in ("falling", "inverse_root"):
        del registry._families[name]


def decaying() -> Known:
    """A loop to which decay is worth something, whatever its shape."""
    return Known(gain=0.1, noise=0.0)


def pasted(result: StudyResult) -> FloatArray:
    """The lrs of a script with the study's lines."""
    names: dict[str, Any] = {"optimizer": make_optimizer()}
    exec(result.code(), names)
    return play(names["optimizer"], names["scheduler"], 100)[:, 0]


@pytest.mark.usefixtures("own")
class TestInverseRoot(ScheduleSuite):
    schedules = (InverseRoot(), InverseRoot(24.0))


@pytest.mark.usefixtures("own")
def test_a_function_is_planned_trained_recorded_reported_and_pasted() -> None:
    result = study(decaying(), "own", plan=WITH_OWN)
    assert result.schedule.name == "falling"
    assert set(result.trials["schedule"]) == {"constant", "falling", "inverse_root"}

    folder = find_folder("own")
    families = json.loads(folder.plan.read_text())["plan"]["decay"]["families"]
    assert families == [{"name": "constant"}, {"name": "falling"}, OWN[2]]
    recorded = {run.start.params.get("schedule") for run in runs(folder)}
    assert {"constant", "falling", "inverse_root"} <= recorded
    stored = optuna.load_study(study_name="own/decay", storage=f"sqlite:///{folder.optuna_db}")
    assert {trial.params["schedule"] for trial in stored.trials} == {"falling", "inverse_root"}
    text = folder.report.read_text()
    assert "falling" in text
    assert "inverse_root" in text

    again = lrsearch.load("own")
    optimizer = make_optimizer()
    got = play(optimizer, again.schedule.build(optimizer, 100), 100)[:, 0]
    assert got.tolist() == again.schedule.curve(PEAKS[0], 100).tolist()
    assert pasted(again).tolist() == got.tolist()
    assert "def falling(fraction):" in again.code()


@pytest.mark.usefixtures("own")
def test_a_family_is_planned_trained_recorded_and_pasted() -> None:
    result = study(decaying(), "own", plan={**PLAN, "decay": {"families": ["constant", OWN[2]]}})
    assert result.schedule.to_dict() == OWN[2]
    np.testing.assert_allclose(pasted(result), InverseRoot(24.0).curve(PEAKS[0], 100), rtol=1e-12)
    assert "24.0" in find_folder("own").report.read_text()


@pytest.mark.usefixtures("own")
def test_a_resume_goes_on_where_the_family_is_known_and_asks_for_it_where_it_is_not() -> None:
    whole = study(decaying(), "whole", plan=WITH_OWN)
    with pytest.raises(KeyboardInterrupt):
        study(decaying(), "cut", plan=WITH_OWN, progress=Ends("decay", interrupt, without_mirror="cut"))
    forget()
    with pytest.raises(InputError) as caught:
        study(decaying(), "cut", plan=None, steps=None, resume=True)
    assert str(caught.value).startswith("decay.families[1].name='falling': names no schedule; ")
    assert str(caught.value).endswith("or first import the module that registers it")
    register(InverseRoot)  # in another order, and with more than there were
    register(falling, after="constant")
    result = study(decaying(), "cut", plan=None, steps=None, resume=True)
    assert (result.lr, result.schedule.to_dict()) == (whole.lr, whole.schedule.to_dict())


@pytest.mark.usefixtures("own")
def test_a_finished_study_is_read_where_the_family_is_not_known() -> None:
    lr = study(decaying(), "own", plan=WITH_OWN).lr
    forget()
    result = lrsearch.load("own")
    assert result.lr == lr
    assert "falling" in set(result.trials["schedule"])
    with pytest.raises(InputError, match=r"name='falling': names no schedule; .* import the module"):
        result.code()


def test_optuna_follows_a_study_whose_families_were_changed() -> None:
    plan = {**PLAN, "decay": {"families": ["constant", "linear", "step"]}}
    with pytest.raises(KeyboardInterrupt):
        study(decaying(), "cut", plan=plan, progress=Ends("confirm", interrupt, without_mirror="cut"))
    plan = {**PLAN, "decay": {"families": ["constant", "linear", "cosine"]}}
    result = study(decaying(), "cut", plan=plan, resume=True, accept_changes=True)
    storage = f"sqlite:///{find_folder('cut').optuna_db}"
    for stage in (stage for stage in result.stages if stage.trials):
        stored = optuna.load_study(study_name=f"cut/{stage.stage}", storage=storage).trials
        told = [trial.params["schedule"] for trial in stored if trial.state.name == "COMPLETE"]
        assert told == [trial.spec.schedule["name"] for trial in stage.trials]


MODULE = """
from lrsearch import schedules
from tests.study.tasks import Known


@schedules.register
def falling_in_a_file(fraction: float) -> float:
    return 1 - 0.9 * fraction


def train(trial):
    Known(gain=0.1, noise=0.0)(trial)
"""


def test_the_command_line_knows_what_the_tasks_file_registers(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "own_task.py").write_text(MODULE)
    (tmp_path / "plan.toml").write_text('[decay]\nfamilies = ["constant", "falling_in_a_file"]\n')
    words = ("own_task.py:train", "--name", "own", "--steps", "100", "--plan", "plan.toml", "--dry-run")
    answer = cli("search", *words)
    assert answer.code == 0, answer.err
    assert "falling_in_a_file" in answer.out
