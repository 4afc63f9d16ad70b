"""What a range test costs: beside a bare training loop, beside other packages, and before its first step.

Every round times each contestant once, on the same net, data, optimizer and loader (`workload.py`), in one
process, with one torch thread, in an order drawn anew each round, and a bare loop between any two of them. A
contestant's ratio is its time a step over the mean of the bare loops just before and just after it; a bare
loop among the contestants tells the noise. What is inside of the timed section is said in `ours.py` and
`peers.py`. The naive way takes 50 steps only: its time a step is compared.

Shown are the median over the rounds, its bootstrap 95% interval (percentiles of 10,000 resamples), and the
extremes.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.bench import costs, ours, peers
from tests.bench.workload import Sample, Workload, bare, calibrate

RESULTS = Path(__file__).parent / "results"
ROUNDS = 15
STEPS = 1000
OTHERS = {1: 1000, 20: 200}
"""Steps of the other packages and the bare loops, by milliseconds a step: all ends in half an hour."""
NAIVE_STEPS = 50
NOISE, UNTRACKED, TRACKED = "bare, to know the noise", "lrsearch, untracked", "lrsearch, tracked to SQLite"
TRIAL = "lrsearch, a trial of the search"
TARGETS = {
    ("1 ms", TRIAL): 1.03,
    ("1 ms", UNTRACKED): 1.05,
    ("20 ms", UNTRACKED): 1.05,
    ("1 ms", TRACKED): 1.25,
    ("20 ms", TRACKED): 1.03,
} | {("cost", name): target for name, target in costs.TARGETS.items()}

Contestant = Callable[[], Sample]


@dataclass(frozen=True)
class Row:
    """One thing timed in one round: a sweep at a step size, with its ratio, or a ``cost`` in seconds."""

    at: str
    name: str
    round: int
    seconds: float
    steps: int | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Figure:
    """All rounds of one thing: of its ratio, or of a cost in seconds. `ms_a_step` is a median too."""

    at: str
    name: str
    rounds: int
    median: float
    low: float
    high: float
    least: float
    most: float
    ms_a_step: float | None
    target: float | None


@dataclass(frozen=True)
class Report:
    """Every row, what follows from them, why a peer is missing, and what it was measured with."""

    rows: list[Row]
    figures: list[Figure]
    missing: dict[str, str]
    setting: dict[str, Any]


def main(arguments: list[str]) -> None:
    """Measures, prints the tables, and writes `results/overhead.csv` and `.json` (not with ``--short``)."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, help=f"paired rounds ({ROUNDS}, with --short 3)")
    parser.add_argument("--short", action="store_true", help="200 steps, none of 20 ms; nothing is written")
    parser.add_argument("--only", type=int, choices=OTHERS, help="one step size, in ms; the other stays")
    given = parser.parse_args(arguments)
    sizes = [given.only] if given.only else list(OTHERS)
    steps = {1: (200, 200)} if given.short else {ms: (STEPS, OTHERS[ms]) for ms in sizes}
    report = measure(steps, given.rounds or (3 if given.short else ROUNDS))
    if given.only:
        report = with_kept(report, RESULTS)
    show(report)
    if not given.short:
        command = " ".join(["python -m tests.bench overhead", *arguments])
        write(report, command, RESULTS)


def measure(steps: dict[int, tuple[int, int]], rounds: int) -> Report:
    """Times the costs, then every contestant; `steps` by milliseconds a step: ours, and the others'."""
    torch.set_num_threads(1)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rows = [
            Row("cost", name, k, seconds)
            for name, all_seconds in costs.measure(place, rounds).items()
            for k, seconds in enumerate(all_seconds)
        ]
        able, versions, missing = peers.able_peers(Workload(width=8, steps=20), place)
        widths = {}
        for step_ms, (own, others) in steps.items():
            widths[f"{step_ms} ms"] = width = calibrate(step_ms / 1e3)
            work = Workload(width, others)
            entrants = contestants(Workload(width, own), work, able, place)
            rows += _rounds(f"{step_ms} ms", entrants, partial(bare, work), rounds)
    setting = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "machine": _machine(),
        "versions": {name: version(name) for name in ("lrsearch", "torch", "mlflow")} | versions,
        "python": platform.python_version(),
        "hidden units": widths,
        "steps a sweep (ours, the others')": {f"{ms} ms": counts for ms, counts in steps.items()},
    }
    return Report(rows, list(summarize(rows)), missing, setting)


def with_kept(report: Report, folder: Path) -> Report:
    """The report with the rows of other step sizes that an earlier run wrote."""
    measured = {(row.at, row.name) for row in report.rows}
    sizes = {row.at for row in report.rows} - {"cost"}
    with (folder / "overhead.csv").open(newline="", encoding="utf-8") as file:
        earlier = [_row(values) for values in csv.DictReader(file)]
    kept = [row for row in earlier if (row.at, row.name) not in measured and row.at not in sizes]
    rows = [*report.rows, *kept]
    return replace(report, rows=rows, figures=list(summarize(rows)))


def _row(values: dict[str, str]) -> Row:
    steps, ratio = values["steps"], values["ratio"]
    return Row(
        at=values["at"],
        name=values["name"],
        round=int(values["round"]),
        seconds=float(values["seconds"]),
        steps=int(steps) if steps else None,
        ratio=float(ratio) if ratio else None,
    )


def contestants(
    own: Workload, work: Workload, able: dict[str, peers.Peer], place: Path
) -> dict[str, Contestant]:
    """Who sweeps, by the name in the table; lrsearch takes `own`, all others `work`."""
    naive = Workload(work.width, min(NAIVE_STEPS, work.steps))
    return {
        UNTRACKED: partial(ours.untracked, own),
        TRACKED: partial(ours.tracked, own, place),
        TRIAL: partial(ours.trial, work),
        **{name: partial(peer, work, place) for name, peer in able.items()},
        "mlflow.log_metrics a step": partial(peers.naive_mlflow, naive, place),
    }


def _rounds(at: str, entrants: dict[str, Contestant], bare_loop: Contestant, rounds: int) -> Iterator[Row]:
    """A bare loop runs between any two contestants: each has one just before it and one just after."""
    order = random.Random(0)
    for k in range(-1, rounds):  # the first round only warms up
        names = order.sample([NOISE, *entrants], len(entrants) + 1)
        bares, samples = [_timed(bare_loop)], []
        for name in names:
            samples.append(_timed(bare_loop if name == NOISE else entrants[name]))
            bares.append(_timed(bare_loop))
        print(f"{at}: round {k + 1} of {rounds}", file=sys.stderr)
        if k >= 0:
            neighbours = pairwise(sample.seconds / sample.steps for sample in bares)
            for name, sample, (before, after) in zip(names, samples, neighbours, strict=True):
                yield from _rows(at, k, name, sample, (before + after) / 2)


def _timed(contestant: Contestant) -> Sample:
    gc.collect()
    with peers.quiet():
        return contestant()


def _rows(at: str, k: int, name: str, sample: Sample, bare_step: float) -> Iterator[Row]:
    yield Row(at, name, k, sample.seconds, sample.steps, sample.seconds / sample.steps / bare_step)
    if isinstance(sample, ours.TrackedSample):
        yield Row("cost", f"run opened, mirror up and connected ({at})", k, sample.opening_s)
        yield Row("cost", f"sweep's end to last commit (in the ratio; {at})", k, sample.tail_s)


def summarize(rows: Sequence[Row]) -> Iterator[Figure]:
    """Median, bootstrap interval and extremes of everything that was timed."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.at, row.name].append(row)
    for (at, name), group in groups.items():
        values = np.array([row.seconds if row.ratio is None else row.ratio for row in group])
        resamples = np.random.default_rng(0).choice(values, (10_000, len(values)))
        low, high = np.percentile(np.median(resamples, axis=1), [2.5, 97.5])
        a_step = [row.seconds / row.steps for row in group if row.steps]
        yield Figure(
            at=at,
            name=name,
            rounds=len(group),
            median=float(np.median(values)),
            low=float(low),
            high=float(high),
            least=float(values.min()),
            most=float(values.max()),
            ms_a_step=1e3 * float(np.median(a_step)) if a_step else None,
            target=TARGETS.get((at, name)),
        )


def show(report: Report) -> None:
    """Prints a table a step size and one of the costs, the targets beside the figures."""
    for at in dict.fromkeys(figure.at for figure in reversed(report.figures)):
        unit = "seconds" if at == "cost" else "x bare"
        print(f"\n{at:57} {unit:>8}  {'95% interval':>17}  {'least … most':>17} {'ms a step':>10}  target")
        for figure in sorted((f for f in report.figures if f.at == at), key=lambda f: f.median):
            interval = f"{figure.low:.3f} … {figure.high:.3f}"
            extremes = f"{figure.least:.3f} … {figure.most:.3f}"
            a_step = f"{figure.ms_a_step:.3f}" if figure.ms_a_step else ""
            line = f"{figure.name:57} {figure.median:8.3f}  {interval:>17}  {extremes:>17} {a_step:>10}"
            print(f"{line}  {_judged(figure)}".rstrip())
    print()
    for name, reason in report.missing.items():
        print(f"{name} did not run here: {reason}")
    for name, value in report.setting.items():
        print(f"{name}: {value}")


def _judged(figure: Figure) -> str:
    if figure.target is None:
        return ""
    return f"≤ {figure.target} {'reached' if figure.median <= figure.target else 'MISSED'}"


def write(report: Report, command: str, folder: Path) -> None:
    """Writes `overhead.csv`, a row a timing, and `overhead.json`, the figures and their setting."""
    folder.mkdir(exist_ok=True)
    with (folder / "overhead.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in report.rows)
    summary = {
        "command": command,
        **report.setting,
        "missing": report.missing,
        "figures": [asdict(figure) for figure in report.figures],
    }
    (folder / "overhead.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def _machine() -> str:
    """Processor, cores and system, without a name."""
    model = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model
        )
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"
