"""Families of schedules: what tells them apart."""

from __future__ import annotations

from typing import Any

import pytest

from lrsearch.core.family import CONSTANT, Family, family_of
from lrsearch.schedules import decay_names, schedule_from_dict

WARMUP = {"name": "warmup", "inner": {"name": "linear"}, "fraction": 0.05}


@pytest.mark.parametrize("name", decay_names())
def test_every_schedule_but_the_constant_one_decays(name: str) -> None:
    assert family_of(schedule_from_dict({"name": name}).to_dict()).decays == (name != "constant")


def test_a_warmup_stands_apart_from_the_schedule_behind_it() -> None:
    plain, warmed = family_of({"name": "linear"}), family_of(WARMUP)
    assert (warmed.name, warmed.decays) == (plain.name, plain.decays)
    assert (plain.warmup, warmed.warmup) == ("", '{"fraction": 0.05, "name": "warmup"}')
    assert warmed != plain
    assert not family_of({**WARMUP, "inner": {"name": "constant"}}).decays


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"name": "wsd", "cooldown": 0.1}, {"name": "wsd", "cooldown": 0.2}),
        ({"name": "wsd"}, {"name": "linear"}),
        (WARMUP, {**WARMUP, "fraction": 0.1}),
        (WARMUP, {**WARMUP, "inner": {"name": "constant"}}),
        (WARMUP, {"name": "linear"}),
    ],
)
def test_parameters_tell_families_apart(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert family_of(one) != family_of(other)
    assert family_of(one).key != family_of(other).key


def test_the_order_of_the_parameters_does_not() -> None:
    assert family_of(WARMUP) == family_of(dict(reversed(WARMUP.items())))
    assert family_of({"name": "wsd", "cooldown": 0.2}) == family_of({"cooldown": 0.2, "name": "wsd"})


def test_a_lr_that_is_constant_is_the_family_of_that_name() -> None:
    assert family_of({"name": "constant"}) == CONSTANT == Family('{"name": "constant"}', decays=False)
