"""The report's page, of studies made by hand: valid, self-contained, escaped, with the study's numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args
from xml.etree.ElementTree import Element

import html5lib
import pytest

from lrsearch.core import text
from lrsearch.core.answer import Answer, WarningName
from lrsearch.core.stats import Gain
from lrsearch.report.page import draw, page
from lrsearch.report.study_page_data import Commands, Origin, ReportData
from tests.report.studies import (
    FACTS,
    answer_of,
    data_of,
    plan_of,
    stages_of,
    trial,
    unfinished,
    with_gain,
    with_losses,
)

SECTIONS = [
    *("answer", "certainty", "range-test", "response", "learning-curves"),
    *("schedules", "finalists", "cost", "trials", "provenance"),
]
SMALLEST_PNG = b"\x89PNG"
PICTURES = dict.fromkeys(["range-test", "response", "schedules", "learning/val/loss"], SMALLEST_PNG)


def written(data: ReportData, pictures: Mapping[str, bytes] = PICTURES) -> str:
    """The page with stand-ins for its plots, which must be valid, whatever is in it."""
    text = page(data, pictures, lambda text: text.replace("hunter2", ""))
    html5lib.HTMLParser(strict=True).parse(text)
    return text


def tree(text: str) -> Element:
    parsed: Element = html5lib.parse(text, namespaceHTMLElements=False)
    return parsed


def section(text: str, name: str) -> str:
    """What is read in a section."""
    (found,) = [e for e in tree(re.sub("</(t.|p)>", r"</\1> ", text)).iter("section") if e.get("id") == name]
    return " ".join("".join(found.itertext()).split())


# --- the page ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    return draw(data_of())


def test_every_plot_is_drawn_once_and_stands_in_the_page(drawn: dict[str, bytes]) -> None:
    assert set(drawn) == {"range-test", "response", "learning/val/loss", "schedules"}
    images = list(tree(written(data_of(), drawn)).iter("img"))
    assert len(images) == len(drawn)
    for image in images:
        assert (image.get("src") or "").startswith("data:image/png;base64,iVBOR")
        assert len(image.get("alt") or "") > 30


def test_the_page_asks_for_nothing_from_anywhere() -> None:
    text = written(data_of())
    page_ = tree(text)
    assert {element.tag for element in page_.iter()} & {"script", "link", "iframe", "object", "base"} == set()
    for element in page_.iter():
        for name, value in element.attrib.items():
            assert not str(name).startswith("on")
            if name in ("src", "href", "srcset", "action", "poster", "style"):
                assert value.startswith("data:image/png")
    assert "@import" not in text
    assert "url(" not in text


def test_the_sections_stand_in_order() -> None:
    assert [element.get("id") for element in tree(written(data_of())).iter("section")] == SECTIONS


@pytest.mark.parametrize(
    "data", [unfinished(), unfinished(stages=[], curves=[], suggestion=None, origins=[])]
)
def test_an_unfinished_study_has_the_same_sections(data: ReportData) -> None:
    text = written(data, {})
    assert [element.get("id") for element in tree(text).iter("section")] == SECTIONS
    assert "There is no answer yet" in section(text, "answer")


# --- what it says -----------------------------------------------------------------------------------------


def test_the_answer_is_one_sentence_with_the_code() -> None:
    said = section(written(data_of()), "answer")
    answer = data_of().answer
    assert answer is not None
    sentence = (
        f"Train beans at a peak learning rate of 0.1 with the schedule linear: val/loss "
        f"{answer.objective:.4g}, 0.03 better than without decay (90% bounds +0.0300 to +0.0300)."
    )
    assert sentence in said
    assert "scheduler = LinearLR(optimizer)" in said


def test_no_decay_needed_is_an_answer() -> None:
    said = section(written(data_of(answer=answer_of(stages_of(), winner="constant"))), "answer")
    assert "with the schedule constant" in said
    assert "no decay is needed" in said


def test_it_says_how_sure_it_is() -> None:
    answer = replace(
        with_gain(answer_of(stages_of()), "cosine", Gain(0.001, -0.02, 0.03, 0.9, "undecided")),
        gain_over_baseline=-0.07,
        test={"winner": {"test/loss": 0.345}},
    )
    said = section(written(data_of(answer=answer)), "certainty")
    interval, tolerance = answer.interval, answer.tolerance
    for part in (
        f"Interval: the {text.interval(interval)} holds the best lr under linear",
        f"Tolerance: any lr from {tolerance.low:.3g}",
        "within 0.00985 of the best val/loss",
        "between seeds is 0.00213",
        "0.07 worse than Adam",
        "Test data, winner: test/loss 0.3450.",
        "leave open whether cosine at 0.1 differs from the winner, linear at 0.1, by more than the margin",
    ):
        assert part in said


@pytest.mark.parametrize("name", get_args(WarningName))
def test_every_warning_says_what_to_do(name: WarningName) -> None:
    said = section(
        written(data_of(answer=replace(answer_of(stages_of()), warnings={name: "it was seen"}))), "certainty"
    )
    assert f"{name.replace('_', ' ')}: it was seen What to do: " in said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"diverged": True, "objectives": {}, "gain": None}, "diverged"),
        ({"gain": Gain(0.01, None, None, 0.9, "one_seed")}, "undecided: a single seed"),
        ({"objectives": {1: 0.4}, "gain": None}, "undecided: no seed in common"),
    ],
)
def test_a_finalist_that_cannot_be_compared_is_said(changed: dict[str, Any], said: str) -> None:
    answer = answer_of(stages_of())
    first, *others = answer.finalists
    text = written(data_of(answer=replace(answer, finalists=(replace(first, **changed), *others))))
    assert said in section(text, "finalists")


def test_a_failed_training_is_shown_with_its_error() -> None:
    said = section(written(with_losses()), "cost")
    assert "coarse 6, lr 0.011, seed 0: ValueError: no <b>luck</b>" in said
    assert "Traceback" in said


def test_the_provenance_is_whole() -> None:
    said = section(written(data_of()), "provenance")
    for part in (
        *("lrsearch reproduce made", "lrsearch search beans", "feedbeef", "12,345", "Abacus 9, 3 cores"),
        *("0123abcd, with uncommitted changes (dirty)", "2.13.0", "not installed", "tag team a"),
        *("1000, 1001, 1002", plan_of().hash, "200 updates, 5 epochs of 40", "sqlite:///mlflow.db"),
    ):
        assert part in said


@pytest.mark.parametrize(
    ("git", "said"),
    [
        ({"commit": "abc", "dirty": False}, "abc, clean"),
        ({"commit": None, "dirty": None}, "no git repository"),
    ],
)
def test_it_says_whether_the_code_was_committed(git: dict[str, Any], said: str) -> None:
    origins = [Origin("then", {**FACTS, "git": git})]
    assert said in section(written(data_of(origins=origins)), "provenance")


def test_a_resumed_study_has_a_column_for_every_process() -> None:
    later = Origin("later", {**FACTS, "versions": {"torch": "2.14.0"}})
    said = section(written(data_of(origins=[Origin("then", FACTS), later])), "provenance")
    assert "torch 2.13.0 2.14.0" in said
    assert "python 3.12.1 –" in said


# --- unfinished and damaged -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ["it was interrupted", "lrsearch resume made"]),
        ({"state": "failed", "problem": "every lr diverged"}, ["it failed", "every lr diverged"]),
        ({"state": "running"}, ["it is running"]),
    ],
)
def test_an_unfinished_study_is_marked_so(changed: dict[str, Any], said: list[str]) -> None:
    text = "".join(tree(written(replace(unfinished(), **changed), {})).itertext())
    assert [part for part in ["This study is not finished", *said] if part not in text] == []


def test_a_finished_study_is_not_marked() -> None:
    assert "not finished" not in written(data_of())


def test_damage_is_said() -> None:
    assert "coarse-01.jsonl: the line at byte 7" in written(
        data_of(damage=["coarse-01.jsonl: the line at byte 7"])
    )


# --- what comes from outside ------------------------------------------------------------------------------

HOSTILE = (
    "</title></pre></td><script>alert('x')</script><img src=http://example.org/x onerror=y>&\"'{{ 7*7 }}"
)


def hostile() -> ReportData:
    stages = list(stages_of())
    broken = replace(trial("coarse", "constant", 0.011), status="failed", error=HOSTILE, cause=HOSTILE)
    stages[1] = replace(stages[1], trials=(*stages[1].trials, broken))
    answer: Answer = replace(answer_of(stages_of()), warnings={"trials_failed": HOSTILE}, reason=HOSTILE)
    return data_of(
        stages=stages,
        answer=answer,
        name=HOSTILE,
        task=HOSTILE,
        problem=HOSTILE,
        state="failed",
        damage=[HOSTILE],
        code=HOSTILE,
        settings={HOSTILE: HOSTILE},
        tags={HOSTILE: HOSTILE},
        data={HOSTILE: {"name": HOSTILE, "items": None, "fingerprint": None, "fingerprint_reason": HOSTILE}},
        origins=[Origin(HOSTILE, {**FACTS, "command": HOSTILE, "host": HOSTILE})],
        tracking=HOSTILE,
        commands=Commands(HOSTILE, HOSTILE, HOSTILE),
    )


def test_markup_from_outside_is_text() -> None:
    text = written(hostile())
    elements = {element.tag for element in tree(text).iter()}
    assert "script" not in elements
    assert len(list(tree(text).iter("img"))) == len(PICTURES)
    assert "<script" not in text
    assert "<img src=http" not in text
    assert html.unescape(text).count(HOSTILE) >= 20


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x85", "\ud800", "\ufffe"])
def test_characters_that_no_page_may_hold_are_replaced(character: str) -> None:
    text = written(data_of(task=f"be{character}ans"))
    assert "be\ufffdans" in text
    text.encode()


def test_every_text_is_cleaned_of_secrets() -> None:
    secret = "ftp://ada:hunter2@host"
    data = replace(hostile(), settings={"source": secret}, tags={"from": secret}, tracking=secret)
    data = replace(data, commands=Commands(secret, secret, secret), damage=[secret], problem=secret)
    assert "hunter2" not in written(replace(data, origins=[Origin("then", {**FACTS, "command": secret})]))
