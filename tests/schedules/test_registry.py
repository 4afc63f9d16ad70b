"""Families of one's own: registered, found by name, in their place, refused in one line."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from lrsearch import schedules
from lrsearch.core.presets import PRESETS, load_plan
from lrsearch.errors import InputError
from lrsearch.schedules import (
    BUILT_IN,
    FAMILIES,
    Cosine,
    Schedule,
    decay_names,
    register,
    schedule_from_dict,
    schedule_name,
    schedule_names,
)
from tests.schedules.own import InverseRoot


def quarter(fraction: float) -> float:
    return 1 - 0.75 * fraction


def test_the_known_families_stand_in_their_order() -> None:
    assert list(FAMILIES) == [
        *("constant", "linear", "cosine", "polynomial", "exponential", "step", "multi_step", "inverse_time"),
        *("time_based", "multiplicative", "wsd", "one_cycle", "cosine_restarts", "cyclic", "plateau"),
        *("warmup", "sweep"),
    ]
    assert [*BUILT_IN, "warmup", "sweep"] == list(FAMILIES)
    assert all(FAMILIES[name].name == name for name in FAMILIES)
    searched = {family["name"] for preset in PRESETS for family in load_plan(preset).decay.families}
    assert searched < set(BUILT_IN)


def test_no_torch_is_loaded_for_schedules() -> None:
    code = "import lrsearch.schedules, sys; print('torch' in sys.modules, 'lrsearch.core' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_family_that_is_registered_is_found_by_its_name() -> None:
    assert register(InverseRoot) is InverseRoot
    schedule = schedule_from_dict({"name": "inverse_root", "sharpness": 3.0})
    assert schedule == InverseRoot(3.0)
    assert decay_names() == [*BUILT_IN, "inverse_root"]
    assert schedule_names()[-1] == "warmup+inverse_root"
    warm = {"name": "warmup", "inner": {"name": "inverse_root"}}
    assert schedule_name(warm) == "warmup+inverse_root"
    assert schedule_from_dict(warm).to_dict()["inner"] == {"name": "inverse_root", "sharpness": 8.0}


def test_a_family_stands_where_it_is_put_and_the_known_ones_keep_their_order() -> None:
    register(InverseRoot, after="linear")
    register(quarter, after="constant")
    assert decay_names()[:4] == ["constant", "quarter", "linear", "inverse_root"]
    assert [name for name in decay_names() if name in BUILT_IN] == list(BUILT_IN)
    assert list(FAMILIES)[-2:] == ["warmup", "sweep"]


def test_a_decorated_function_is_a_family_and_stays_a_function() -> None:
    @register
    def halves(fraction: float) -> float:
        return 1 - fraction / 2

    assert halves(1.0) == 0.5
    assert schedule_from_dict({"name": "halves"}).curve(2.0, 4).tolist() == [2.0, 1.75, 1.5, 1.25]


def test_the_same_definition_run_again_replaces_the_one_before_in_its_place() -> None:
    def again(final: float) -> Callable[[float], float]:
        def decays(fraction: float) -> float:
            return 1 - (1 - final) * fraction

        return decays

    register(again(0.5), after="constant")
    register(again(0.1))
    assert decay_names()[1] == "decays"
    assert schedule_from_dict({"name": "decays"}).curve(1.0, 2)[1] == pytest.approx(0.55)
    register(again(0.1), after="cosine")
    assert decay_names()[:4] == ["constant", "linear", "cosine", "decays"]


def named(name: str, function: Callable[[float], Any]) -> Any:
    def made(fraction: float) -> Any:
        return function(fraction)

    made.__name__ = name
    return made


class Abstract(Schedule):
    name: ClassVar[str] = "abstract"


@dataclass(frozen=True)
class WithoutDefault(InverseRoot):
    name: ClassVar[str] = "without_default"
    sharpness: float
    other: int = 1

    def __init__(self, sharpness: float) -> None:
        object.__setattr__(self, "sharpness", sharpness)


class Untitled(Cosine):
    name = None  # type: ignore[assignment]


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "taken": (lambda: register(named("cosine", lambda x: 1 - x)), "the name 'cosine' is taken"),
    "taken-by-the-warmup": (lambda: register(named("warmup", lambda x: 1 - x)), "the name 'warmup' is taken"),
    "a-known-family-under-its-parents-name": (lambda: register(type("Mine", (Cosine,), {})), "is taken"),
    "lambda": (lambda: register(lambda x: 1 - x), "its name '<lambda>' is none"),
    "no-name": (lambda: register(Untitled), "its name None is none"),
    "no-schedule": (lambda: register(dict), "is no schedule"),  # type: ignore[type-var]
    "an-instance": (lambda: register(Cosine()), "is no schedule"),  # type: ignore[type-var]
    "built-in-function": (lambda: register(math.cos), "is no schedule"),
    "abstract": (lambda: register(Abstract), "cannot be made without parameters (is abstract)"),
    "parameter-without-default": (lambda: register(WithoutDefault), "cannot be made without parameters ("),
    "after-nothing": (lambda: register(quarter, after="cosin"), "after='cosin': names no other decay"),
    "after-the-sweep": (lambda: register(quarter, after="sweep"), "after='sweep': names no other decay"),
    "nan": (lambda: register(named("bad", lambda x: math.nan)), "bad(0.0)=nan: is no ratio to the peak"),
    "infinite": (lambda: register(named("bad", lambda x: math.inf)), "bad(0.0)=inf: is no ratio"),
    "negative": (lambda: register(named("bad", lambda x: 0.5 - x)), "bad(0.51)=-0.01"),
    "above-the-peak": (lambda: register(named("bad", lambda x: 1 + x)), "bad(0.01)=1.01: is no ratio"),
    "text": (lambda: register(named("bad", lambda x: "1")), "bad(0.0)='1': is no ratio"),
    "none": (lambda: register(named("bad", lambda x: None)), "bad(0.0)=None: is no ratio"),
    "bool": (lambda: register(named("bad", lambda x: True)), "bad(0.0)=True: is no ratio"),
    "raises": (lambda: register(named("bad", lambda x: 1 / (x - 1))), "is no ratio to the peak at"),
    "divides": (
        lambda: register(named("bad", lambda x: 1 / x)),
        "raised ZeroDivisionError at the fraction 0.0",
    ),
    "not-registered": (
        lambda: schedule_from_dict({"name": "my_decay"}),
        "schedule.name='my_decay': names no schedule; choose from constant, linear, ",
    ),
}


@pytest.mark.parametrize(("call", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_named_in_one_line(call: Callable[[], object], said: str) -> None:
    known = dict(FAMILIES)
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert said in message
    assert ";" in message
    assert "\n" not in message
    assert list(FAMILIES.items()) == list(known.items())


def test_what_is_not_registered_is_asked_to_be() -> None:
    with pytest.raises(InputError, match="first import the module that registers it"):
        schedules.schedule_from_dict({"name": "my_decay"})
