"""The versions that ``make test-lowest`` and ``make test-newest`` take are what pyproject.toml says."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PINS = (CHECKOUT / ".ci" / "constraints.txt").read_text(encoding="utf-8").split()


def constraints(end: str) -> list[str]:
    script = CHECKOUT / ".ci" / "bounds.py"
    run = subprocess.run([sys.executable, script, end], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_the_lowest_are_the_bounds_and_the_pinned_torch() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [bound for bound in project["dependencies"] if not bound.startswith("torch>=")]
    lowest = constraints("lowest")
    assert {bound.replace(">=", "==") for bound in bounds} <= set(lowest)
    assert [pin for pin in lowest if pin.startswith("torch==")] == constraints("newest")
    assert constraints("newest")[0] in PINS
