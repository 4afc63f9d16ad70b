"""What a wrong setting of a range test says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lrsearch.core.sweep_plan import SweepPlan, validated
from lrsearch.errors import InputError

LR = "give a finite lr above 0"
CHOICES = (
    "accumulate, clip, precision, min_lr, max_lr, steps, spacing, smoothing, repeats, seed, stop, divergence"
)

WRONG: list[tuple[str, Any, str]] = [
    *[("min_lr", value, LR) for value in (0, -1e-3, math.nan, math.inf, "small", None)],
    *[("max_lr", value, LR) for value in (0, -10.0, math.nan, math.inf, "large", None)],
    *[("min_lr", value, "swap them or widen the range") for value in (10.0, 20.0)],
    *[("steps", value, "give at least 10 steps") for value in (9, 0, -5, 50.5, math.nan, "many")],
    *[("spacing", value, "choose 'log' or 'linear'") for value in ("exp", "LOG", None, 1)],
    *[("smoothing", value, "from 0 (no smoothing) to below 1") for value in (1, 1.5, -0.1, math.nan, "much")],
    *[("repeats", value, "at least 1") for value in (0, -1, 1.5, None)],
    *[("seed", value, "a whole number from 0 to 2**32 - 1") for value in (-1, 2**32, 0.5, None)],
    *[("stop", value, "choose 'auto', '4x' or 'none'") for value in ("4X", "never", None, 4, False)],
    *[("divergence", value, "'not_finite' or 'loss_rose'") for value in ("rose", None, True)],
    *[("accumulate", value, "at least 1") for value in (0, -2, 0.5, None)],
    *[("clip", value, "above 0, or None") for value in (0, -1.0, math.nan, math.inf, "norm")],
    *[("precision", value, "choose '32', '16' or 'bf16'") for value in ("fp16", 64, None, "b\nf16")],
]


@pytest.mark.parametrize(("argument", "value", "mend"), WRONG, ids=[f"{a}={v!r}" for a, v, _ in WRONG])
def test_a_wrong_value_is_named_with_its_mend_in_one_line(argument: str, value: Any, mend: str) -> None:
    with pytest.raises(InputError) as raised:
        validated(SweepPlan, **{argument: value})
    message = str(raised.value)
    assert message.startswith(f"{argument}={value!r}: ")
    assert mend in message
    assert "\n" not in message


def test_every_argument_has_wrong_values_in_the_table() -> None:
    assert {argument for argument, _, _ in WRONG} == set(SweepPlan.model_fields)


def test_an_empty_range_names_both_ends() -> None:
    with pytest.raises(InputError, match=r"^min_lr=0\.5: is not below max_lr=0\.1; swap them"):
        validated(SweepPlan, min_lr=0.5, max_lr=0.1)


def test_an_unknown_argument_is_named_with_the_choices() -> None:
    with pytest.raises(InputError) as raised:
        validated(SweepPlan, step=100)
    assert str(raised.value) == f"step=100: is unknown; choose from {CHOICES}"


def test_the_first_of_two_wrong_values_is_named() -> None:
    with pytest.raises(InputError, match=r"^min_lr=-1: "):
        validated(SweepPlan, repeats=0, min_lr=-1)


def test_a_plan_cannot_be_changed_after_it_was_validated() -> None:
    with pytest.raises(ValueError, match="frozen"):
        validated(SweepPlan).steps = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("asked", "batches", "accumulate", "steps"),
    [
        (None, 7, 1, 100),  # a short epoch is repeated
        (None, 100, 1, 100),
        (None, 938, 1, 938),  # one epoch
        (None, 1000, 1, 1000),
        (None, 50_000, 1, 1000),  # a long one is cut
        (None, 938, 4, 234),  # four batches a step
        (None, 300, 4, 100),
        (None, None, 1, 300),  # an epoch of unknown length
        (None, None, 8, 300),
        (50, 938, 1, 50),  # as asked, whatever the epoch
        (5000, 10, 4, 5000),
        (10, None, 1, 10),
    ],
)
def test_the_sweep_takes_one_epoch_within_bounds_unless_told(
    asked: int | None, batches: int | None, accumulate: int, steps: int
) -> None:
    assert validated(SweepPlan, steps=asked, accumulate=accumulate).steps_for(batches) == steps
