"""Print pip's constraints for one end of what pyproject.toml admits: ``lowest`` or ``newest``.

At both ends torch is the release that constraints.txt pins, the CPU build. ``lowest`` has every requirement
of the build and of the package at its bound, and the tests' tools as pinned; what those need in their turn
is the newest that fits.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
PINS = dict(line.split("==") for line in (HERE / "constraints.txt").read_text(encoding="utf-8").split())


def lowest() -> dict[str, str]:
    """The release at each bound: every one is ``name>=version`` and nothing else."""
    requirements = PROJECT["build-system"]["requires"] + PROJECT["project"]["dependencies"]
    bounds = dict(requirement.split(">=") for requirement in requirements)
    tools = [re.split(r"[\[>=]", tool)[0] for tool in PROJECT["project"]["optional-dependencies"]["test"]]
    return bounds | {tool: PINS[tool] for tool in tools} | newest()


def newest() -> dict[str, str]:
    """Nothing is held back but torch."""
    return {"torch": PINS["torch"]}


if __name__ == "__main__":
    ends = {"lowest": lowest, "newest": newest}
    for name, version in ends[sys.argv[1]]().items():
        print(f"{name}=={version}")
