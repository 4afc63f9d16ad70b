"""Is the response surface right on trainings that nobody here made? Replays on a table of language models.

The table has 1,911 pretrainings (Step Law, arXiv 2503.04715), one final loss each, a factor √2 in lr apart;
`LRSEARCH_STEPLAW` names its file, `dense.csv`. A slice is one model, length and batch size with nine lrs or
more. A replay's first lr is drawn evenly over a slice, by seed; the surface asks for the others out of those
that the table has. Judged is the loss at the answered lr, interpolated (PCHIP), over the lowest of the slice.

The surface's constants were chosen with a look at the even-numbered slices: the targets are those of the odd
ones, and the others stand beside.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from lrsearch.core.curve import Array
from lrsearch.core.surface import Observation, Place, Surface

RESULTS = Path(__file__).parent / "results"
TABLE = "LRSEARCH_STEPLAW"
LEAST_LRS = 9
SEEDS = 4
TRAININGS = (3, 4, 5)
NATS = 0.0006, 0.003
"""Median and 90th percentile that are to be reached with all trainings."""
DECISION_MS = 50.0
"""Processor time of a decision that is to be reached."""
UNTRAINED = 11.0
"""Nats: the logarithm of the vocabulary, about 65,000 tokens."""
LEVEL = 0.9
COVERAGE = 0.86, 0.94
WIDTH = 1.5
"""Octaves: the median width of the intervals."""
_FINENESS = 121

Half = Literal["judged", "looked at"]
HALVES: tuple[Half, ...] = ("judged", "looked at")
"""Of the slices: the odd-numbered ones, and the even ones."""


@dataclass(frozen=True)
class Verdict:
    """A figure, its target, and whether it is reached, in words."""

    figure: str
    value: str
    target: str
    said: str


@dataclass(frozen=True)
class Played:
    """A replay: its slice, seed and trainings, what the answer loses, and the interval in octaves."""

    slice: str
    half: Half
    seed: int
    trainings: int
    nats: float
    octaves: float
    covered: bool
    milliseconds: float


def main(arguments: list[str], folder: Path = RESULTS) -> None:
    """Replays every slice, prints the figures and writes `llm.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench llm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"replays a slice ({SEEDS})")
    given = parser.parse_args(arguments)
    table = os.environ.get(TABLE, "")
    if not Path(table).is_file():
        print(f"skipped: {TABLE} names no file ({table!r}); it is to be dense.csv of the Step Law paper")
        return
    begin = time.monotonic()
    played = replayed(table, given.seeds)
    setting = {
        "command": " ".join(["python -m tests.bench llm", *arguments]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "seeds": given.seeds,
    }
    write(played, setting, folder)


def replayed(table: str, seeds: int) -> list[Played]:
    """So many replays of every slice of a table, on all cores."""
    jobs = [(table, name, seed) for name in slices(table) for seed in range(seeds)]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        return [one for found in pool.map(play, *zip(*jobs, strict=True), chunksize=8) for one in found]


def write(played: Sequence[Played], setting: Mapping[str, object], folder: Path) -> None:
    """Prints the figures, and whether they reach their targets, and writes both."""
    figures = [
        figure(group)
        for half in HALVES
        for count in TRAININGS
        if (group := [one for one in played if (one.half, one.trainings) == (half, count)])
    ]
    for found in figures:
        print("  ".join(f"{name} {_short(value)}" for name, value in found.items()))
    judged = [one for one in played if (one.half, one.trainings) == ("judged", max(TRAININGS))]
    targets = verdicts(figure(judged))
    for verdict in targets:
        print(f"{verdict.figure}: {verdict.value} (target {verdict.target}) {verdict.said}")
    summary = {
        **setting,
        "figures": [{name: _short(value) for name, value in found.items()} for found in figures],
        "targets": [asdict(verdict) for verdict in targets],
        "worst": worst_first(judged),
    }
    (folder / "llm.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


@cache
def slices(table: str) -> dict[str, pd.Series[float]]:
    """By name the losses of a slice of a table, by rising lr."""
    groups = pd.read_csv(table).groupby(
        ["parameters", "hidden", "layers", "heads", "ffn", "tokens", "batch_size"]
    )
    found = {}
    for key, rows in groups:
        losses = rows.groupby("lr")["smooth_loss"].min().sort_index()
        if len(losses) >= LEAST_LRS:
            found[" ".join(f"{part:g}" for part in key)] = losses
    return found


def play(table: str, name: str, seed: int) -> list[Played]:
    """A replay of one slice, judged after each number of trainings that is asked for."""
    losses, number = slices(table)[name], list(slices(table)).index(name)
    lrs = [float(lr) for lr in losses.index]
    rng = np.random.default_rng([number, seed])
    tried = [lrs[int(rng.integers(len(lrs)))]]
    spent, found = 0.0, []
    while True:
        begin = time.process_time()
        seen = [Observation(lr, float(losses[lr])) for lr in tried]
        surface = Surface(seen, UNTRAINED - min(o.objective for o in seen if o.objective is not None))
        if len(tried) in TRAININGS:
            nats, octaves, covered = judge(surface, tried, losses)
            found.append(
                Played(
                    slice=name,
                    half=HALVES[1 - number % 2],
                    seed=seed,
                    trainings=len(tried),
                    nats=nats,
                    octaves=octaves,
                    covered=covered,
                    milliseconds=1e3 * spent / (len(tried) - 1),
                )
            )
        if len(tried) == max(TRAININGS):
            return found
        left = [Place(lr) for lr in lrs if lr not in tried]
        worth = surface.knowledge_gradient(left, [Place(lr) for lr in within(lrs[0], lrs[-1])])
        tried.append(left[int(worth.argmax())].lr)
        spent += time.process_time() - begin


def judge(surface: Surface, tried: Sequence[float], losses: pd.Series[float]) -> tuple[float, float, bool]:
    """What the answer of a surface loses, among the lrs between those tried, in nats; the width of its
    interval in octaves, and whether that holds the best lr of the slice.
    """
    inside = within(min(tried), max(tried))
    answer = float(inside[surface.losses([Place(lr) for lr in inside]).argmin()])
    beyond = [Place(lr) for lr in within(min(tried) / 4, max(tried) * 4)]
    low, high = surface.optimum(beyond, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    lrs, values = losses.index.to_numpy(dtype=np.float64), losses.to_numpy()
    truth = PchipInterpolator(np.log2(lrs), values)
    nats = float(truth(np.log2(answer)) - values.min())
    return nats, float(np.log2(high / low)), bool(low <= lrs[values.argmin()] <= high)


def figure(played: Sequence[Played]) -> dict[str, float | str]:
    """Of replays of one half with equally many trainings: nats, the interval, a decision's processor time."""
    nats = [one.nats for one in played]
    median, p90, worst = np.percentile(nats, [50, 90, 100])
    return {
        "half": played[0].half,
        "slices": len({one.slice for one in played}),
        "trainings": played[0].trainings,
        "median": float(median),
        "p90": float(p90),
        "worst": float(worst),
        "covered": float(np.mean([one.covered for one in played])),
        "octaves": float(np.median([one.octaves for one in played])),
        "ms a decision": float(np.mean([one.milliseconds for one in played])),
    }


def verdicts(last: Mapping[str, float | str]) -> list[Verdict]:
    """Whether the figures with all trainings reach their targets."""
    median, p90, covered, octaves, ms = (
        float(last[name]) for name in ("median", "p90", "covered", "octaves", "ms a decision")
    )
    low, high = COVERAGE
    found = (
        ("median", f"{median:.3g} nats", f"{NATS[0]:g} nats", median <= NATS[0]),
        ("90th percentile", f"{p90:.3g} nats", f"{NATS[1]:g} nats", p90 <= NATS[1]),
        (
            "intervals that hold the best lr",
            f"{covered:.1%}",
            f"{low:.0%} to {high:.0%}",
            low <= covered <= high,
        ),
        ("their median width", f"{octaves:.4g} octaves", f"{WIDTH:g} octaves", octaves <= WIDTH),
        ("a decision", f"{ms:.3g} ms", f"{DECISION_MS:g} ms", ms <= DECISION_MS),
    )
    return [
        Verdict(name, value, target, "reached" if reached else "MISSED")
        for name, value, target, reached in found
    ]


def worst_first(judged: Sequence[Played]) -> list[dict[str, Any]]:
    """The ten replays that lose most."""
    worst = sorted(judged, key=lambda one: -one.nats)[:10]
    return [{k: _short(v) for k, v in asdict(one).items() if k != "milliseconds"} for one in worst]


def within(low: float, high: float) -> Array:
    """Lrs from one to another, evenly in log."""
    return np.asarray(np.geomspace(low, high, _FINENESS))


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
