"""`lrsearch compare`: what it prints and where, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lrsearch.tracking.folder import StudyFolder
from tests.conftest import Command
from tests.study.tasks import Known, study

PLAN: dict[str, Any] = {
    "preset": "quick",
    "budget": 16.0,
    "range_test": {"repeats": 1, "share": 0.7},
    "coarse": {"points": 3, "extensions": 1},
    "confirm": {"seeds": 3, "max_seeds": 3},
}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of known losses, of which the second is better by a hundred times the noise."""
    place = tmp_path_factory.mktemp("compared") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSEARCH_HOME", str(place))
        for name, gain in (("plain", 0.0), ("better", 0.2)):
            study(Known(gain=gain, first_validation=True), name, plan=PLAN)
        (StudyFolder(place / "begun").journal).mkdir(parents=True)
    return place


@pytest.fixture(autouse=True)
def here(studied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRSEARCH_HOME", str(studied))


def test_it_says_which_study_is_better_and_shows_both(cli: Command) -> None:
    done = cli("compare", "plain", "better")
    assert (done.code, done.err) == (0, "")
    assert "better has the best mean val/loss" in done.out
    assert "it is better than plain by more than the noise between seeds" in done.out
    shown = [line.split() for line in done.out.splitlines()]
    assert [words[0] for words in shown if words and words[-1].count(".")][:2] == ["plain", "better"]


def test_json_is_one_object_and_nothing_else(cli: Command) -> None:
    done = cli("compare", "plain", "better", "--json")
    found = json.loads(done.out)
    assert done.code == 0
    assert (found["best"], found["report"]) == ("better", None)
    assert [entry["verdict"] for entry in found["studies"]] == ["worse", "best"]


def test_out_writes_the_page_and_says_where(cli: Command, tmp_path: Path) -> None:
    done = cli("compare", "plain", "better", "--out", "page.html")
    page = tmp_path / "page.html"
    assert done.code == 0
    assert f"page    {page}" in done.out
    assert "<h2>Which differences are real" in page.read_text(encoding="utf-8").replace("h3", "h2")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("plain",), 2, "name at least two studies"),
        (("plain", "plain"), 2, "named twice"),
        (("plain", "bettr"), 2, "no such study; there are better"),
        (("plain", "begun"), 1, "begun: no study there"),
        (("plain", "better", "--out", "nowhere/page.html"), 2, "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    cli: Command, words: tuple[str, ...], code: int, said: str
) -> None:
    done = cli("compare", *words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("lrsearch: ")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_debug_shows_the_traceback(cli: Command) -> None:
    assert "Traceback" in cli("compare", "plain", "nothing", "--debug").err
