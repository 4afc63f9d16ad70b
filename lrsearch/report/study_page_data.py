"""All that a study's report shows, read from wherever it lies; the report itself opens no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.curve import Array, RangeTestCurve
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.suggest import Suggestion

State = Literal["finished", "running", "interrupted", "failed"]


@dataclass(frozen=True)
class Commands:
    """What to type: to run the winner again, to go on where the study is unfinished, and what was typed."""

    reproduce: str
    resume: str
    typed: str | None


@dataclass(frozen=True)
class Origin:
    """A process that worked on the study: when it began, in UTC, and its provenance."""

    began: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class ReportData:
    """A study as its report shows it, whole or as far as it has come.

    `problem` is what ended a failed one; `damage` says what of the record could not be read. `answer` is
    None before there is one; `so_far` then is what the base schedule's trials say, for the drawing. A stage
    that is not done has found nothing. `settings` say what was trained, `tags` are the user's, `data` the
    fingerprints by context. `schedules` hold the lr of every update, `learning` the steps and values by
    metric, both by the finalist's name. `sweep_seconds` is what the range test took.
    """

    name: str
    task: str
    state: State
    problem: str | None
    damage: Sequence[str]
    plan: StudyPlan
    total_steps: int
    steps_per_epoch: int | None
    settings: Mapping[str, Any]
    tags: Mapping[str, str]
    data: Mapping[str, Mapping[str, Any]]
    stages: Sequence[StageResult]
    answer: Answer | None
    so_far: Answer | None
    code: str | None
    curves: Sequence[RangeTestCurve]
    suggestion: Suggestion | None
    sweep_seconds: float
    schedules: Mapping[str, Array]
    learning: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]]
    origins: Sequence[Origin]
    tracking: str | None
    commands: Commands
