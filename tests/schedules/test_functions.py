"""A plain function of the fraction as a schedule: its curve, and a script that has it without lrsearch."""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable
from functools import wraps
from math import cos
from typing import Any

import numpy as np
import pytest

from lrsearch.errors import InputError
from lrsearch.schedules import Warmup
from lrsearch.schedules import registry as registered
from lrsearch.schedules.functions import family_of
from lrsearch.testing import PEAKS, ScheduleSuite, make_optimizer, play
from lrsearch.training.schedulers import build

FLOOR = 0.1
TABLE = [1.0, 0.5, 0.25]


def rooted(fraction: float) -> float:
    """The square root of what is left."""
    return math.sqrt(1 - fraction)  # a comment


def floored(fraction: float) -> float:
    return FLOOR + (1 - FLOOR) * (1 + cos(math.pi * fraction)) / 2


def of_numpy(fraction: float) -> float:
    return np.exp(-3 * fraction)  # type: ignore[no-any-return]


def with_default(fraction: float, power: float = FLOOR) -> float:
    return float((1 - fraction) ** power)


def looked_up(fraction: float) -> float:
    return max(TABLE[int(2 * fraction)] for _ in range(2))


def nested(fraction: float) -> float:
    return sum(math.exp(-k * fraction) * FLOOR for k in range(3)) / 3


def enclosing(drop: float) -> Callable[[float], float]:
    def enclosed(fraction: float) -> float:
        return 1 - drop * fraction

    return enclosed


def decorated(function: Callable[[float], float]) -> Callable[[float], float]:
    @wraps(function)
    def wrapper(fraction: float) -> float:
        return function(fraction) / 2

    return wrapper


@decorated
def wrapped(fraction: float) -> float:
    return 1 - fraction


FUNCTIONS: list[Any] = [rooted, floored, of_numpy, with_default, looked_up, nested, enclosing(0.7), wrapped]
FAMILIES = {function.__name__: family_of(function) for function in FUNCTIONS}


@pytest.fixture(autouse=True, scope="module")
def known() -> Any:
    """Known by name while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        for name, family in FAMILIES.items():
            patch.setitem(registered._families, name, family)
        yield


class TestFunctions(ScheduleSuite):
    schedules = (*(family() for family in FAMILIES.values()), Warmup(FAMILIES["rooted"]()))


def test_the_curve_is_the_function_of_n_over_t() -> None:
    curve = FAMILIES["rooted"]().curve(0.3, 10)
    assert curve.tolist() == [0.3 * math.sqrt(1 - n / 10) for n in range(10)]


def test_a_loop_that_goes_on_stays_at_the_end() -> None:
    optimizer = make_optimizer()
    got = play(optimizer, build(FAMILIES["floored"](), optimizer, 10), 15)
    np.testing.assert_allclose(got[10:, 0], 0.1 * PEAKS[0])


@pytest.mark.parametrize(
    ("function", "lines"),
    [
        (rooted, ["import math", "def rooted(fraction):", "return math.sqrt(1 - fraction)"]),
        (floored, ["FLOOR = 0.1", "from math import cos", "import math", "def floored(fraction):"]),
        (of_numpy, ["import numpy as np", "def of_numpy(fraction):"]),
        (enclosing(0.7), ["drop = 0.7", "def enclosed(fraction):"]),
        (with_default, ["from tests.schedules.test_functions import with_default"]),
        (looked_up, ["from tests.schedules.test_functions import looked_up"]),
        (wrapped, ["from tests.schedules.test_functions import wrapped"]),
    ],
)
def test_the_code_brings_the_function_along_or_imports_it(function: Any, lines: list[str]) -> None:
    code = family_of(function)().code(0.3, 60)
    assert code.startswith("from torch.optim import lr_scheduler\n")
    for line in lines:
        assert line in code
    assert "lrsearch" not in code


def test_the_code_behind_a_warmup_has_the_function_once() -> None:
    assert Warmup(FAMILIES["rooted"]()).code(0.3, 60).count("def rooted") == 1


def test_what_no_script_can_have_is_refused_at_once() -> None:
    table = [1.0, 0.5]

    def local(fraction: float) -> float:
        return table[int(fraction)]

    with pytest.raises(InputError, match=r"cannot be written into a training script; define it at the top"):
        family_of(local)  # type: ignore[arg-type]


def test_a_function_that_fails_later_is_an_input_error_too() -> None:
    def steep(fraction: float) -> float:
        return -1.0 if 0.501 < fraction < 0.509 else 1.0

    with pytest.raises(InputError, match=r"steep\(0.505\)=-1.0: is no ratio to the peak"):
        family_of(steep)().curve(1.0, 200)  # type: ignore[arg-type]


def test_what_was_never_in_a_file_is_refused_or_brought_along_from_where_it_was_typed() -> None:
    text = "def typed(fraction):\n    return 1 - fraction\n"
    names: dict[str, Any] = {}
    exec(compile(text, "<typed>", "exec"), names)
    with pytest.raises(InputError, match="define it at the top level of a module"):
        family_of(names["typed"])
    with pytest.MonkeyPatch.context() as patch:  # as a notebook keeps its cells
        patch.setitem(linecache.cache, "<typed>", (len(text), None, text.splitlines(True), "<typed>"))
        assert "def typed(fraction):" in family_of(names["typed"])().code(0.3, 10)
