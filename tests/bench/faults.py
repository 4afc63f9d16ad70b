"""What faults cost: kills (`crash_faults.py`), a full disk and the like (`machine_faults.py`), and those of
the tracking server (`server_faults.py`).

Studies are killed, stopped, and cannot write; servers refuse, hang, fail, and are away. A line a fault says
how often it was tried, and what was lost or double afterwards.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version

from tests.bench import crash_faults, machine_faults, server_faults
from tests.bench.crash_faults import Outcome
from tests.bench.overhead import RESULTS

SHORT_AWAY_S = 2.0


def main(arguments: list[str]) -> None:
    """Measures, prints a line a fault, and writes `results/faults.json` (not with ``--short``)."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="ten kills, the rest once; nothing is written")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    given = parser.parse_args(arguments)
    begin = time.monotonic()
    outcomes = []
    for outcome in measure_short(given.seed) if given.short else measure(given.seed):
        print(line(outcome), flush=True)
        outcomes.append(outcome)
    if not given.short:
        summary = {
            "command": " ".join(["python -m tests.bench faults", *arguments]),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "minutes": round((time.monotonic() - begin) / 60, 1),
            "checkpoint every, s": crash_faults.CHECKPOINT_S,
            "server away for, s": server_faults.AWAY_S,
            "server faults tried on": {
                "SQLite": server_faults.SQLITE,
                "PostgreSQL": server_faults.POSTGRESQL,
            },
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("lrsearch", "torch", "mlflow", "optuna")},
            "outcomes": [asdict(outcome) | {"lost": outcome.lost} for outcome in outcomes],
        }
        (RESULTS / "faults.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if any(outcome.lost or outcome.problems for outcome in outcomes):
        sys.exit(1)


def measure(seed: int) -> Iterator[Outcome]:
    """Everything, in the full form."""
    yield from crash_faults.measure(seed=seed)
    yield from machine_faults.measure()
    yield from server_faults.measure()


def measure_short(seed: int) -> Iterator[Outcome]:
    """Ten kills, two clean stops by each signal, and every other fault once, without PostgreSQL."""
    yield from crash_faults.measure(10, 2, seed)
    yield from machine_faults.measure(1)
    yield from server_faults.measure(1, 0, SHORT_AWAY_S)


def line(outcome: Outcome) -> str:
    """What is printed of an outcome."""
    said = (
        f"{outcome.fault}: {outcome.tried} times on {outcome.records} records; lost {outcome.lost} "
        f"(trials {outcome.wrong_trials}, answers {outcome.wrong_answers}, runs {outcome.wrong_runs}, "
        f"points {outcome.wrong_points}, runs never ended {outcome.never_ended})"
    )
    if outcome.repeated is not None and outcome.repeated_s is not None:
        in_training = sum(updates > 0 for updates in outcome.repeated)
        said += f"; {in_training} made work be taken again, {max(outcome.repeated_s):.2f} s at most"
    if outcome.held_up_s is not None:
        said += f"; training held up by {outcome.held_up_s:.2f} s at most"
    return "\n  ".join([said, *outcome.problems])
