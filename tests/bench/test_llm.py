"""The replays on a table of language models, here on one that is made up: clean bowls, nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests import readme
from tests.bench import llm
from tests.bench.llm import Played

BEST = 0.002
BATCH_SIZES = (32, 64, 128)
CURVATURE = 0.01
"""Nats that half an octave's square costs."""


def bowl(batch_size: int, lrs: int) -> pd.DataFrame:
    """One slice, its lrs a factor √2 apart."""
    lr = BEST * 2 ** ((np.arange(lrs) - 3) / 2)
    loss = 2.6 + CURVATURE * (2 * np.log2(lr / BEST)) ** 2
    model = {"parameters": 214663680, "hidden": 960, "ffn": 9368, "heads": 15, "layers": 7}
    length = {"tokens": 4_000_000_000, "batch_size": batch_size, "updates": 61035}
    return pd.DataFrame({**model, **length, "lr": lr, "loss": loss, "smooth_loss": loss})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three slices; a fourth one has too few lrs."""
    path = tmp_path_factory.mktemp("llm") / "dense.csv"
    slices = [bowl(batch_size, 11) for batch_size in BATCH_SIZES]
    pd.concat([*slices, bowl(256, llm.LEAST_LRS - 1)]).to_csv(path, index=False)
    return str(path)


def untimed(played: list[Played]) -> list[Played]:
    return [replace(one, milliseconds=0.0) for one in played]


@pytest.mark.parametrize("named", ["", "nowhere/dense.csv"])
def test_without_a_table_it_is_skipped_with_the_reason(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(llm.TABLE, named)
    llm.main([], tmp_path)
    said = capsys.readouterr().out
    assert said.startswith("skipped: LRSEARCH_STEPLAW names no file")
    assert named in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_of_a_clean_bowl_is_found_in_five_trainings(table: str, seed: int) -> None:
    for name in llm.slices(table):
        *_, last = llm.play(table, name, seed)
        assert last.trainings == 5
        assert 0 <= last.nats < llm.NATS[0]
        assert last.covered


def test_a_replay_is_the_same_twice_and_another_with_another_seed(table: str) -> None:
    name, *_ = llm.slices(table)
    first, again, other = (untimed(llm.play(table, name, seed)) for seed in (0, 0, 1))
    assert first == again
    assert [one.nats for one in first] != [one.nats for one in other]


def test_what_was_looked_at_is_not_judged(table: str) -> None:
    halves = [llm.play(table, name, 0)[0].half for name in llm.slices(table)]
    assert halves == ["looked at", "judged", "looked at"]


def test_a_figure_is_over_its_target_or_not() -> None:
    figures = {"median": 0.0006, "p90": 0.0031, "covered": 0.95, "octaves": 1.4, "ms a decision": 51.0}
    said = {verdict.figure: verdict.said for verdict in llm.verdicts(figures)}
    assert list(said.values()) == ["reached", "MISSED", "MISSED", "reached", "MISSED"]


def test_the_table_on_the_page_follows_from_what_a_run_writes(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(readme, "BENCH", tmp_path)
    monkeypatch.setenv(llm.TABLE, table)
    llm.main(["--seeds", "1"], tmp_path / "results")
    written = json.loads((tmp_path / "results" / "llm.json").read_text(encoding="utf-8"))
    counts = [(one["half"], one["slices"], one["trainings"]) for one in written["figures"]]
    assert counts == [("judged", 1, n) for n in (3, 4, 5)] + [("looked at", 2, n) for n in (3, 4, 5)]
    assert {one["half"] for one in written["worst"]} == {"judged"}
    shown = readme.llm_table()
    assert "| judged (1) | 5 | 0.000" in shown
    assert "`python -m tests.bench llm --seeds 1`" in shown
    printed = capsys.readouterr().out
    for one in written["targets"]:
        assert f"{one['figure']}: {one['value']} (target {one['target']}) {one['said']}" in printed
