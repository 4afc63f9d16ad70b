"""The parts of the README that are generated: `python -m tests.readme` writes them anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
COMMANDS = ((), ("range-test",), ("sync",))


def command_help() -> str:
    """The help of every command, as it is printed on a terminal of 100 columns."""
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    texts = []
    for command in COMMANDS:
        words = [*command, "--help"]
        script = "from lrsearch.cli import main; main()"
        run = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.argv = ['lrsearch', *{words!r}]; {script}"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line.rstrip() for line in run.stdout.strip().splitlines()]
        texts.append("\n".join([f"$ lrsearch {' '.join(words)}", *lines]))
    return "```console\n" + "\n\n".join(texts) + "\n```"


def rendered(text: str) -> str:
    """The README with its generated parts made anew."""
    parts = {"help": command_help()}
    for name, part in parts.items():
        pattern = f"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)"
        text, count = re.subn(pattern, lambda found, part=part: found[1] + part + "\n" + found[2], text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"README.md has {count} places for {name!r}, not one")
    return text


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
