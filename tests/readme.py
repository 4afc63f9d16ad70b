"""The parts of the README that are generated: `python -m tests.readme` writes them anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from lrsearch.core.suggest import RULES
from lrsearch.report.tables import RULE_READS

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


def rules_table() -> str:
    """What each rule's lr is and how good it is, from the last run of `python -m tests.bench rules`."""
    figures = json.loads((README.parent / "tests/bench/results/rules.json").read_text(encoding="utf-8"))
    lines = [
        "| rule | the lr | share of the improvement lost: mean (90th percentile) | five seeds apart |",
        "|---|---|---|---|",
    ]
    for rule in RULES:
        lost = f"{figures[rule]['mean']:.1f}% ({figures[rule]['p90']:.1f}%)"
        lines.append(f"| `{rule}` | {RULE_READS[rule]} | {lost} | {figures[rule]['seeds_apart']:.1f}x |")
    return "\n".join(lines)


def rendered(text: str) -> str:
    """The README with its generated parts made anew."""
    parts = {"help": command_help(), "rules": rules_table()}
    for name, part in parts.items():
        before, begin, rest = text.partition(f"<!-- {name}: begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}: end -->")
        if not begin or not end:
            raise ValueError(f"README.md has no place for {name!r}")
        text = f"{before}{begin}{part}\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
