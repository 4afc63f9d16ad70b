"""Comparisons of studies made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lrsearch.core.comparison import ComparedStudy, Comparison, compare_studies
from tests.report.studies import STEPS, answer_of, plan_of, stages_of

SIZES = {"small": 16, "middle": 32, "large": 128}


def studies_of(metric: str = "val/loss", **changed: Any) -> list[ComparedStudy]:
    """Three studies by batch size: middle is as good as small, large is worse by far more than the noise."""
    stages = stages_of(metric)
    answer = answer_of(stages, metric)
    studies = []
    for name, size in SIZES.items():
        worse = {"small": 0.0, "middle": 1e-4, "large": 0.1}[name] * (1 if metric == "val/loss" else -1)
        objectives = {seed: value + worse for seed, value in answer.winner.objectives.items()}
        winner = replace(answer.winner, objectives=objectives)
        params = {"model": "Net", "optimizer": "SGD", "batch_size": size}
        values: dict[str, Any] = {
            "name": name,
            "task": "digits",
            "answer": replace(answer, finalists=(winner, *answer.finalists[:1])),
            "stages": stages,
            "plan": plan_of(metric),
            "total_steps": STEPS,
            "steps_per_epoch": None,
            "params": params,
            "data": {},
        }
        studies.append(ComparedStudy(**{**values, **changed}))
    return studies


def comparison_of(metric: str = "val/loss", **changed: Any) -> Comparison:
    """What they give."""
    return compare_studies(studies_of(metric, **changed))
