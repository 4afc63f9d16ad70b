"""Families of schedules, as the response surface tells them apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """A schedule by its canonical JSON, and whether its lr decays; a warmup before it by JSON of its own."""

    name: str
    decays: bool
    warmup: str = ""

    @property
    def key(self) -> str:
        """The same for the same family: text."""
        return f"{self.warmup} {self.name}" if self.warmup else self.name


def family_of(schedule: Mapping[str, Any]) -> Family:
    """Return the family of a schedule that is given as its `to_dict`."""
    if schedule["name"] == "warmup":
        inner = family_of(schedule["inner"])
        own = {name: value for name, value in schedule.items() if name != "inner"}
        return Family(inner.name, inner.decays, json.dumps(own, sort_keys=True))
    return Family(json.dumps(dict(schedule), sort_keys=True), schedule["name"] != "constant")


CONSTANT = family_of({"name": "constant"})
