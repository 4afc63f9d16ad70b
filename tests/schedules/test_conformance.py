"""Every family of ours, on its own and behind a warmup, is put through the suite for families."""

from __future__ import annotations

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
)
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
