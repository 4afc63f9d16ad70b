"""Whatever the finalists scored, no page says two things of a pair that contradict each other."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from html import unescape
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lrsearch.core.answer import Answer
from lrsearch.core.conclude import finalists_of
from lrsearch.core.confirm import Confirmed
from lrsearch.core.stats import Candidate, decide
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.table import Row
from lrsearch.core.trial import Configuration
from lrsearch.report.page import page
from lrsearch.report.study import answer_lines, describe_study, remark_lines, study_table
from lrsearch.report.study_page_data import finalist_table
from lrsearch.schedules import schedule_name, schedule_names
from tests.report.shown import printed, words
from tests.report.studies import answer_of, data_of, plan_of, stages_of

OBJECTIVES: list[dict[str, Any]] = [
    {"metric": "val/loss"},
    {"metric": "val/accuracy"},
    {"metric": "val/score", "direction": "minimize"},
    {"metric": "val/score", "direction": "maximize"},
]
SCHEDULES: list[dict[str, Any]] = [
    *({"name": name} for name in ("constant", "linear", "cosine", "wsd")),
    {"name": "warmup", "inner": {"name": "linear"}, "fraction": 0.05},
]
SEEDS = range(1000, 1004)
ANSWER = answer_of(stages_of())
DATA = data_of()
SECTION = re.compile(r'<section id="(.*?)">(.*?)</section>', re.DOTALL)


@dataclass(frozen=True)
class Case:
    """Finalists by the place of their schedule: the objective by seed as a loss, empty where it diverged."""

    losses: dict[int, dict[int, float]]
    objective: int = 0
    margin: float = 0.01
    paired: bool = True
    level: float = 0.9

    @property
    def plan(self) -> StudyPlan:
        return plan_of().with_changes(
            objective=OBJECTIVES[self.objective], confirm={"paired": self.paired}, level=self.level
        )

    def answer(self) -> Answer:
        """As the confirm stage decides and the answer holds it."""
        plan = self.plan
        schedules = {f"{schedule_name(SCHEDULES[k])} at 0.{k + 1}": SCHEDULES[k] for k in self.losses}
        candidates = tuple(
            Candidate(name, schedule_name(schedules[name]), (k + 1) / 10, found, diverged=not found)
            for (k, found), name in zip(self.losses.items(), schedules, strict=True)
        )
        decision = decide(
            candidates,
            self.margin,
            simplicity=schedule_names(),
            paired=self.paired,
            level=self.level,
            best_mean=plan.objective.best_mean,
        )
        winner = decision.winner
        configurations = {c.name: Configuration(c.lr, schedules[c.name]) for c in candidates}
        return replace(
            ANSWER,
            lr=winner.lr,
            schedule=schedules[winner.name],
            objective=plan.objective.from_loss(winner.mean),
            metric=plan.objective.metric,
            reason=decision.reason,
            margin=self.margin,
            finalists=finalists_of(plan, Confirmed(decision, candidates, configurations, self.margin, None)),
        )


def scattered(centre: int) -> st.SearchStrategy[dict[int, float]]:
    """Losses around a centre, of some seeds."""
    loss = st.integers(-30, 30).map(lambda k: (centre + k) / 1000)
    return st.dictionaries(st.sampled_from(SEEDS), loss, max_size=len(SEEDS))


CASES = st.builds(
    Case,
    losses=st.dictionaries(
        st.integers(0, len(SCHEDULES) - 1),
        st.integers(300, 400).flatmap(scattered),
        min_size=1,
        max_size=4,
    ).filter(lambda losses: any(losses.values())),
    objective=st.integers(0, len(OBJECTIVES) - 1),
    margin=st.sampled_from([0.0005, 0.01, 0.05]),
    paired=st.booleans(),
    level=st.sampled_from([0.5, 0.8, 0.9, 0.99]),
)
ONE_SIDED = Case({0: {1000: 0.1458, 1001: 0.1756}, 1: {1000: 0.0988, 1001: 0.0988}}, margin=0.0005)
"""Decided by the one-sided bound, while the two-sided interval is -0.0325 to 0.156."""


def summary_of(answer: Answer, plan: StudyPlan) -> dict[str, Row]:
    """Of every finalist but the winner what its column shows: the difference, the bounds, the verdict."""
    table = finalist_table(answer, plan)
    columns = range(2, len(table.columns), 2)
    return {table.columns[k]: tuple(row[k + 1] for row in table.foot) for k in columns}


def bounds_of(shown: str) -> tuple[float, float] | None:
    found = re.fullmatch(r"(\S+) to (\S+)", shown)
    return None if found is None else (float(found[1]), float(found[2]))


def sections(html: str) -> list[str]:
    """What is read of the answer, of how sure it is, and of the finalists."""
    whole = {name: re.sub("<[^>]*>", " ", text) for name, text in SECTION.findall(html)}
    return [words(unescape(whole[name])) for name in ("answer", "certainty", "finalists")]


def check_words(row: Row, margin: float) -> None:
    """The verdict against the numbers that stand above it, rounded as they are."""
    mean, shown, verdict = float(row[0]), bounds_of(row[1]), row[2]
    if shown is None:
        assert (row[1], verdict) == ("none", "undecided: a single seed")
        return
    low, high = shown
    near = 0.006 * max(abs(low), abs(high), margin)
    assert low - near <= mean <= high + near
    match verdict:
        case "worse":
            assert low >= 0
        case "not worse by more than the margin":
            assert high <= margin + near
        case "not better by more than the margin, and the winner is simpler":
            assert -margin - near <= low <= near
        case "better on the seeds of both":
            assert high <= -margin + near
        case _:
            assert verdict == "undecided"
            assert any(low - near <= side <= high + near for side in (margin, -margin))


@given(CASES)
@example(ONE_SIDED)
@settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_no_page_contradicts_itself_or_another(case: Case) -> None:
    plan, answer = case.plan, case.answer()
    said, certainty, table = sections(page(replace(DATA, answer=answer, plan=plan), {}, str))
    terminal = words(" ".join([*answer_lines(answer, 1.0), printed(study_table(answer, []), 1000)]))
    remarks = remark_lines(answer)
    markdown = describe_study(answer, plan, {}).replace("\\", "")
    pages = (said, certainty, table, terminal, *remarks, markdown)

    shown = summary_of(answer, plan)
    for row in shown.values():
        assert row[2] in table
        if row[0] == "–":
            assert row[2] in ("diverged", "undecided: no seed in common")
        else:
            check_words(row, case.margin)

    open_ = [name for name, row in shown.items() if row[2].startswith("undecided")]
    sentence = f"hether {' or '.join(open_)} differs from the winner, {answer.winner.name}, by more than"
    for text in (said, certainty, remarks[0], markdown):
        assert (sentence in text) is bool(open_)
        assert ("leave open" in text) is bool(open_)
    assert ("nothing, each difference lies on one side of the margin" in certainty) is not bool(open_)
    assert not [text for text in pages if "told apart" in text or "every finalist" in text]

    wrong = "highest" if plan.objective.towards == "minimize" else "lowest"
    assert not [text for text in pages if f"{wrong} mean" in text]
    assert answer.reason.lower() in certainty.lower()

    constant = answer.constant
    for text in (said, terminal, markdown):
        assert ("no decay is needed" in text) is (constant is answer.winner)
        if constant is None or constant.gain is None or constant is answer.winner:
            continue
        mean, bounds, verdict = shown[constant.name]
        found = re.search(r"(\S+) (better|worse) than without decay \((.*?)\)", text)
        assert found is not None
        assert float(found[1]) == pytest.approx(abs(float(mean)), rel=0.01, abs=1e-9)
        assert found[2] == ("better" if float(mean) >= 0 else "worse")
        assert ("undecided" in found[3]) is verdict.startswith("undecided")
        if (both := bounds_of(bounds)) is not None:
            low, high = map(float, re.findall(r"bounds (\S+) to ([^\s:]+)", found[3])[0])
            assert (low, high) == pytest.approx(both, rel=0.01, abs=1e-9)


def test_what_the_bounds_decide_is_shown_with_them() -> None:
    answer = ONE_SIDED.answer()
    mean, bounds, verdict = summary_of(answer, ONE_SIDED.plan)["constant at 0.1"]
    shown = bounds_of(bounds)
    assert shown is not None
    assert (mean, verdict, shown[0] > 0) == ("+0.0619", "worse", True)
    assert answer.reason == "lowest mean val/loss"
