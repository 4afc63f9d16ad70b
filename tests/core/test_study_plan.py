"""What a study's plan says by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lrsearch.core.objective import Objective, direction_of
from lrsearch.core.presets import load_plan
from lrsearch.errors import InputError


@pytest.mark.parametrize(
    ("base", "schedule", "expected"),
    [
        ("constant", {"name": "constant"}, 0.1),
        ("constant", {"name": "wsd"}, 0.3),
        ("constant", {"name": "warmup", "inner": {"name": "constant"}, "fraction": 0.05}, 0.3),
        ("linear", {"name": "linear"}, 0.1),
        ("linear", {"name": "cosine"}, 0.1),
        ("linear", {"name": "constant"}, 0.1 / 3),
    ],
)
def test_decay_is_expected_to_raise_the_best_lr_by_the_plans_factor(
    base: str, schedule: dict[str, Any], expected: float
) -> None:
    plan = load_plan({"base_schedule": {"name": base}, "decay": {"peak_factor": 3.0}})
    assert plan.expected_lr(schedule, 0.1) == pytest.approx(expected)


MINIMISED = ["val/loss", "loss", "train/LOSS", "val/ppl", "val/wer", "cer", "val/text/rmse", "val/Perplexity"]
MAXIMISED = ["val/accuracy", "acc", "val/F1", "val/AUROC", "dev/iou", "val/r2", "bleu"]
UNKNOWN = [
    *("val/cross_entropy", "val/bce", "val/mape", "val/fid", "val/kl", "val/eer", "val/top5", "val/deviance"),
    *("val/glossary_f1", "val/lossless_psnr", "val/neg_loss", "val/val_loss", "loss/value", "val/", ""),
]


@pytest.mark.parametrize(
    ("names", "direction"), [(MINIMISED, "minimize"), (MAXIMISED, "maximize"), (UNKNOWN, None)]
)
def test_a_direction_is_told_by_a_usual_name_alone(names: list[str], direction: str | None) -> None:
    assert {name: direction_of(name) for name in names} == dict.fromkeys(names, direction)


def test_a_direction_that_the_name_does_not_say_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"'val/bce' .*; give direction='minimize' or .*--direction"):
        _ = Objective(metric="val/bce").towards
    assert Objective(metric="val/bce", direction="minimize").towards == "minimize"
    assert Objective(metric="val/loss", direction="maximize").towards == "maximize"


def test_another_metric_does_not_inherit_the_direction() -> None:
    plan = load_plan({"objective": {"metric": "val/score", "direction": "maximize", "use": "best"}})
    other = plan.with_changes(objective={"metric": "val/loss"}).objective
    assert (other.towards, other.use) == ("minimize", "best")
    assert plan.with_changes(objective={"metric": "val/score"}).objective.towards == "maximize"
    assert plan.with_changes(seed=3).objective.towards == "maximize"


# --- its schedules ----------------------------------------------------------------------------------------

WARM_SWEEP = {"name": "warmup", "inner": {"name": "sweep"}}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "family": ({"decay": {"families": ["linear", "cosin"]}}, r"decay.families\[1\].name='cosin': names no "),
    "base": (
        {"base_schedule": "cosin"},
        r"base_schedule.name='cosin': names no schedule; choose from .*cosine",
    ),
    "inner": (
        {"base_schedule": {"name": "warmup", "inner": {"name": "cosin"}}},
        r"base_schedule.inner.name='cosin': names no schedule; choose from .*cosine",
    ),
    "no-name": ({"base_schedule": {}}, r"base_schedule.name=None: names no schedule; choose from "),
    "family-is-the-sweep": (
        {"decay": {"families": ["sweep"]}},
        r"decay.families\[0\].name='sweep': is no decay; choose from constant, .*, plateau$",
    ),
    "base-is-the-sweep": (
        {"base_schedule": "sweep"},
        r"base_schedule.name='sweep': is no decay; choose from ",
    ),
    "sweep-behind-a-warmup": ({"decay": {"families": [WARM_SWEEP]}}, r"warmup.inner=Sweep.*; choose a sched"),
    "parameter": (
        {"decay": {"families": [{"name": "step", "gama": 0.1}]}},
        r"step.gama=0.1: the schedule has no such parameter; choose from every, gamma",
    ),
    "value": (
        {"base_schedule": {"name": "wsd", "cooldown": 3.0}},
        r"wsd.cooldown=3.0: is out of range; choose",
    ),
    "inner-is-text": (
        {"decay": {"families": [{"name": "warmup", "inner": "cosine"}]}},
        r"decay.families\[0\].inner='cosine': is no table; give ",
    ),
}


@pytest.mark.parametrize(("table", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_schedule_is_named_as_soon_as_the_plan_is_loaded(
    table: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_plan(table)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message):
        load_plan(load_plan().with_changes(**table))


def test_a_wrong_schedule_in_a_file_is_named_too(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text('[decay]\nfamilies = ["constant", "liner"]\n')
    with pytest.raises(InputError, match=r"decay.families\[1\].name='liner': names no schedule; choose from"):
        load_plan(file)


def test_a_warmup_may_be_in_a_plan() -> None:
    warm = {"name": "warmup", "inner": {"name": "cosine"}}
    plan = load_plan({"base_schedule": warm, "decay": {"families": [warm, "linear"]}})
    assert (plan.base_schedule, plan.decay.families[1]) == (warm, {"name": "linear"})
