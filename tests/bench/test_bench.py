from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections import Counter
from pathlib import Path

import mlflow
import pytest

from tests.bench import __main__, costs, overhead, peers, storage
from tests.bench.overhead import Figure, Report, Row
from tests.bench.workload import Sample, Workload, bare

ROUNDS = 1  # and the warm-up; a round waits seconds for the imports of fresh processes
STEPS = 12


@pytest.fixture(scope="module")
def report() -> Report:
    return overhead.measure({1: (STEPS, STEPS)}, ROUNDS)


def _sweeps(report: Report) -> dict[str, Figure]:
    return {figure.name: figure for figure in report.figures if figure.at == "1 ms"}


def test_every_contestant_has_a_figure_or_a_reason(report: Report) -> None:
    ours = {overhead.UNTRACKED, overhead.TRACKED, overhead.TRIAL, overhead.NOISE}
    others = set(peers.PEERS) | {"mlflow.log_metrics a step"}
    assert set(_sweeps(report)) | set(report.missing) == ours | others


def test_every_round_is_there(report: Report) -> None:
    counts = Counter((row.at, row.name) for row in report.rows)
    assert set(counts.values()) == {ROUNDS}


def test_every_sweep_takes_all_steps(report: Report) -> None:
    assert {row.steps for row in report.rows if row.at == "1 ms"} == {STEPS}


def test_figures_are_positive_and_ordered(report: Report) -> None:
    for f in report.figures:
        assert 0 < f.least <= f.low <= f.median <= f.high <= f.most < math.inf, f


def test_every_sweep_is_held_against_a_bare_loop(report: Report) -> None:
    sweeps = [row for row in report.rows if row.at != "cost"]
    assert all(row.ratio is not None and row.steps for row in sweeps)


def test_every_cost_with_a_target_is_measured(report: Report) -> None:
    measured = {figure.name for figure in report.figures if figure.target is not None}
    assert measured >= set(costs.TARGETS) | {overhead.UNTRACKED, overhead.TRACKED}


def test_what_is_written_can_be_read(report: Report, tmp_path: Path) -> None:
    overhead.write(report, "the command", tmp_path)
    with (tmp_path / "overhead.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((tmp_path / "overhead.json").read_text(encoding="utf-8"))
    assert len(rows) == len(report.rows)
    assert len(summary["figures"]) == len(report.figures)
    assert {"command", "date", "machine", "versions"} <= set(summary)


def test_the_table_names_every_figure(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    overhead.show(report)
    shown = capsys.readouterr().out
    assert [f.name for f in report.figures if f.name not in shown] == []


def test_a_median_over_its_target_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("1 ms", overhead.UNTRACKED, k, 1.0, 1000, ratio) for k, ratio in enumerate((1.0, 1.2, 1.3))]
    overhead.show(Report(rows, list(overhead.summarize(rows)), {}, {}))
    assert "≤ 1.05 MISSED" in capsys.readouterr().out


@pytest.mark.parametrize("users", [None, "http://127.0.0.1:5000"])
def test_mlflow_by_hand_leaves_the_users_server(monkeypatch: pytest.MonkeyPatch, users: str | None) -> None:
    if users is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", users)
    with peers.tracking_to("sqlite:///bench.db"):
        assert mlflow.get_tracking_uri() == "sqlite:///bench.db"
    assert os.environ.get("MLFLOW_TRACKING_URI") == users


def test_a_peer_that_stops_early_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def early(work: Workload, place: Path) -> Sample:
        return bare(Workload(work.width, work.steps // 2))

    monkeypatch.setattr(peers, "PEERS", {"early": ("torch", early)})
    able, _, missing = peers.able_peers(Workload(width=8, steps=10), tmp_path)
    assert (able, missing) == ({}, {"early": "it took 5 steps of 10"})


def test_the_record_is_measured_and_written_with_its_targets(tmp_path: Path) -> None:
    figures = list(storage.measure(points=2000, runs=2))  # raises where a point is lost on its way
    storage.write(figures, tmp_path)
    summary = json.loads((tmp_path / "storage.json").read_text(encoding="utf-8"))
    assert {"command", "date", "machine", "versions"} <= set(summary)
    assert [figure["target"] for figure in summary["figures"]] == [5, 100, 10, 100, 60, None]
    assert all(figure.value > 0 for figure in figures)


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (storage.Figure("read", 9.0, "s", 10.0), "target 10 s reached"),
        (storage.Figure("read", 11.0, "s", 10.0), "target 10 s MISSED"),
    ],
)
def test_a_figure_says_whether_its_target_is_reached(figure: storage.Figure, said: str) -> None:
    assert str(figure).endswith(said)


def test_an_unknown_benchmark_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "nosuch"])
    with pytest.raises(SystemExit, match="2"):
        __main__.main()
