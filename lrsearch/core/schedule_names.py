"""What schedules are called, and which is the simpler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SIMPLICITY = (
    *("constant", "linear", "cosine", "polynomial", "exponential", "step", "multi_step", "inverse_time"),
    *("time_based", "multiplicative", "wsd", "one_cycle", "cosine_restarts", "cyclic", "plateau"),
)
"""Schedules in the order in which one is kept where nothing tells them apart."""


def schedule_name(schedule: Mapping[str, Any]) -> str:
    """The family's name of a schedule as data, with a warmup in front of it said: ``warmup+linear``."""
    if schedule["name"] == "warmup":
        return f"warmup+{schedule['inner']['name']}"
    return str(schedule["name"])


def schedule_names() -> list[str]:
    """All names that `schedule_name` gives, simplest first."""
    return [*SIMPLICITY, *(f"warmup+{name}" for name in SIMPLICITY)]
