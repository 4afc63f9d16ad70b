"""Is the answer right, and what does it cost? Contestants on five tasks, judged by exhaustive tables.

Without options the studies are replayed from the tables in `results/oracle/`; that takes minutes and gives
the same figures every time. `--oracle` first trains what the tables lack (hours), `--live` runs real studies.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna

from tests.bench.regret import findings, live, oracle, peers, plots, rivals
from tests.bench.regret.contestants import contestants
from tests.bench.regret.data import fetch
from tests.bench.regret.score import COVERAGE, TARGETS, Row, Score, judged, medians, score

RESULTS = Path(__file__).parent.parent / "results"
STUDIES = 500
_CHUNK = 50


def main(arguments: list[str]) -> None:
    """Replays, prints the tables, and writes `regret.csv`, `regret.json` and `regret.png`."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench regret",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--oracle", action="store_true", help="train what the tables lack, then replay")
    parser.add_argument("--live", action="store_true", help="run the real studies that are missing, too")
    parser.add_argument("--studies", type=int, default=STUDIES, help=f"replays a task ({STUDIES})")
    parser.add_argument("--only", nargs="+", help="these contestants only; nothing is written")
    given = parser.parse_args(arguments)
    if given.oracle or given.live:
        fetch()
    if given.oracle:
        oracle.compute()
        peers.compute()
        rivals.compute()
        findings.compute()
    if given.live:
        live.compute()
    begin = time.monotonic()
    rows = [*replayed(given.studies, given.only), *live.rows(), *rivals.rows()]
    scores = scored(rows)
    show(scores)
    if not given.only:
        setting = {
            "command": " ".join(["python -m tests.bench regret", *arguments]),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "minutes": round((time.monotonic() - begin) / 60, 1),
            "studies a task": given.studies,
            "tables": {name: oracle.fingerprint(name) for name in oracle.whole_tasks()},
            "versions": {name: version(name) for name in ("lrsearch", "torch", "optuna", "numpy", "scipy")},
        }
        write(rows, scores, setting)
        findings.report()


def replayed(studies: int, only: Sequence[str] | None = None) -> list[Row]:
    """Every contestant in so many studies of every task, on all cores."""
    names = [contestant.name for contestant in contestants() if only is None or contestant.name in only]
    jobs = [
        (name, task, first, min(first + _CHUNK, studies))
        for name in names
        for task in oracle.whole_tasks()
        for first in range(0, studies, _CHUNK)
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _quiet) as pool:
        return [row for rows in pool.map(_play, *zip(*jobs, strict=True)) for row in rows]


def scored(rows: Iterable[Row]) -> list[Score]:
    """The figures of every contestant, replayed and live apart, best median first."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.how, row.contestant), []).append(row)
    found = []
    for (how, name), group in groups.items():
        found.append(score(group, groups.get((how, "default")) if name != "default" else None))
    return sorted(found, key=lambda s: s.median)


def show(scores: Sequence[Score]) -> None:
    """Prints a line a contestant, targets beside the figures."""
    head = f"{'regret in %':45} {'median':>14} {'90th pct':>14} {'worst task':>10} {'div.':>6} {'noise':>6}"
    print(f"{head} {'octaves':>8} {'cost':>6} {'covered':>8}  behind default (95%)")
    for s in scores:
        behind = "" if s.behind is None else f"{s.behind[0]:+.2f} ({s.behind[1]:+.2f} … {s.behind[2]:+.2f})"
        covered = "" if s.covered is None else f"{s.covered:.1%}"
        print(
            f"{s.contestant[:40]:40} {s.how[:4]:4} {s.median:7.2f} ±{s.median_error:5.2f} {s.p90:7.2f} "
            f"±{s.p90_error:5.2f} {s.worst_task:10.2f} {s.diverged:6.1%} {s.in_noise:6.2f} {s.octaves:8.2f} "
            f"{s.cost:6.1f} {covered:>8}  {behind}"
        )
    for s in scores:
        if s.how == "replay" and s.contestant in TARGETS:
            print("; ".join(judgement(s)))


def judgement(score: Score) -> list[str]:
    """Each target of a preset and whether it is reached: also its standard error counts."""
    median, p90 = TARGETS[score.contestant]
    lines = []
    for name, value, error, target in (
        ("median", score.median, score.median_error, median),
        ("90th percentile", score.p90, score.p90_error, p90),
    ):
        sure = error < target / 3
        said = "reached" if value <= target and sure else "not sure" if value <= target else "MISSED"
        lines.append(f"{score.contestant}: {name} {value:.2f}% (target {target}%, s.e. {error:.2f}) {said}")
    if score.covered is not None:
        within = COVERAGE[0] <= score.covered <= COVERAGE[1]
        lines.append(f"coverage {score.covered:.1%} {'reached' if within else 'MISSED'}")
    return lines


def write(rows: Sequence[Row], scores: Sequence[Score], setting: dict[str, Any]) -> None:
    """Writes the rows, the figures and the plot."""
    with (RESULTS / "regret.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Row)])
        for row in rows:
            writer.writerow([_short(getattr(row, field.name)) for field in fields(Row)])
    by_task = {
        name: medians([row for row in rows if row.contestant == name and row.how == "replay"])
        for name in dict.fromkeys(row.contestant for row in rows)
    }
    warned = live.warned()
    print(f"{warned:.0%} of the real studies carry a warning (at most a third should)")
    summary = {
        **setting,
        "live studies with a warning": warned,
        "scores": [asdict(s) | {"group": _group(s)} for s in scores],
        "medians": by_task,
    }
    (RESULTS / "regret.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    plots.regret_against_cost(scores, RESULTS / "regret.png")


def _group(score: Score) -> str:
    """The table that a contestant stands in: replayed ones in their own, real studies in ``live``."""
    groups = {contestant.name: contestant.group for contestant in contestants()}
    if score.contestant not in groups:
        return "rivals"
    return groups[score.contestant] if score.how == "replay" else "live"


def _play(name: str, task: str, first: int, last: int) -> list[Row]:
    (contestant,) = (c for c in contestants() if c.name == name)
    return [judged(name, task, number, contestant.play(task, number)) for number in range(first, last)]


def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _short(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return float(f"{value:.4g}") if isinstance(value, float) else value
