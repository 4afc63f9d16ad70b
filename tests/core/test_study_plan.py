"""What a study's plan says by itself."""

from __future__ import annotations

from typing import Any

import pytest

from lrsearch.core.study_plan import load_plan


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
