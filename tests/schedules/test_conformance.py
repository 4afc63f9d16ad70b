"""Every family of ours, on its own and behind a warmup, is put through the suite for families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from lrsearch.schedules import (
    BUILT_IN,
    FAMILIES,
    WSD,
    CosineRestarts,
    Cyclic,
    MultiStep,
    OneCycle,
    Polynomial,
    Schedule,
    Step,
    Sweep,
    Warmup,
    registry,
)
from lrsearch.schedules.base import FloatArray, Horizon
from lrsearch.schedules.recipe import Function, Stage
from lrsearch.testing import ScheduleSuite

INNER = tuple(FAMILIES[name]() for name in BUILT_IN)


class TestEveryFamily(ScheduleSuite):
    schedules = (
        *INNER,
        Warmup(),
        Sweep(),
        *(Warmup(inner, 0.1) for inner in INNER),
        Step(0.4, 0.5),
        MultiStep((0.2, 0.5, 0.9), 0.5),
        Polynomial(0.5),
        Cyclic(3, mode="triangular2"),
        Cyclic(5, 0.1, "exp_range", 0.2),
        OneCycle(0.5, 0.1, 1e-3),
        CosineRestarts(3, 2),
        WSD(0.0, 1.0 - 1e-9),
        WSD(0.3, 0.7),
        WSD(0.9, 0.05),
        Sweep(1e-4, 1.0, "linear"),
    )


@pytest.mark.parametrize("schedule", TestEveryFamily.schedules, ids=repr)
def test_our_code_needs_torch_alone(schedule: Schedule) -> None:
    code = schedule.code(0.3, 60, 6)
    assert code.startswith("from torch.optim import lr_scheduler\n")
    assert "import" not in code.split("\n", 1)[1]


# The suite finds what is wrong with a family.


@dataclass(frozen=True)
class Wrong(Schedule):
    """Right but for one thing."""

    name: ClassVar[str] = "wrong"

    fault: str = ""
    tags: tuple[Any, ...] = ()

    def _ratios(self, horizon: Horizon) -> FloatArray:
        n, steps = horizon.n, horizon.steps
        match self.fault:
            case "short":
                return np.ones(steps - 1)
            case "nan":
                return np.where(n == steps - 1, np.nan, 1.0)
            case "above":
                return 1 + n / steps
            case "below":
                return 0.5 - n / steps
            case "absolute":
                return np.exp(-n / 100)
        return 1 - n / steps

    def _stages(self, horizon: Horizon) -> list[Stage]:
        steps = horizon.steps
        power = 1.01 if self.fault == "scheduler" else 1.0
        factor = Function(
            "lambda n: 1.0" if self.fault == "code" else f"lambda n: max(1 - n / {steps}, 0.0) ** {power}",
            lambda n: max(1 - n / steps, 0.0) ** power,
        )
        return [Stage(steps, "LambdaLR", {"lr_lambda": factor})]


CURVE, SHAPE = "the_curve_has_a_ratio_an_update", "the_shape_is_the_same_at_another_horizon"
FAULTS = {
    "short": CURVE,
    "nan": CURVE,
    "above": CURVE,
    "below": CURVE,
    "absolute": SHAPE,
    "scheduler": "the_built_scheduler_yields_the_curve",
    "code": "the_code_yields_what_is_built",
}


@pytest.mark.parametrize(("fault", "test"), FAULTS.items())
def test_the_suite_finds_a_fault(fault: str, test: str) -> None:
    run = getattr(ScheduleSuite(), f"test_{test}")
    run(Wrong())
    with pytest.raises(AssertionError):
        run(Wrong(fault))


def test_the_suite_finds_a_parameter_that_json_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._families, "wrong", Wrong)
    suite = ScheduleSuite()
    suite.test_json_and_back_is_the_same_schedule(Wrong(tags=(1, 2)))
    with pytest.raises(AssertionError):
        suite.test_json_and_back_is_the_same_schedule(Wrong(tags=({1: 2},)))
