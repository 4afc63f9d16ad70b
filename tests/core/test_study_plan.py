"""What a study's plan says by itself."""

from __future__ import annotations

from typing import Any

import pytest

from lrsearch.core.study_plan import Objective, direction_of, load_plan
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
