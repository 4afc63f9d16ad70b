"""Views of a study in MLflow's UI: which runs, columns and charts a link opens.

MLflow keeps a shared view as JSON in a tag of the experiment, ``mlflow.sharedViewState.<key>``; a link names
the key. What of it another version of the UI does not know, it passes over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lrsearch.tracking.entries import RunStart

_TAG = "mlflow.sharedViewState."
_SECTION = "lrsearch"
_DEFAULTS: dict[str, Any] = {
    "runsPinned": [],
    "runsHidden": [],
    "runsVisibilityMap": {},
    "runsExpanded": {},
    "groupBy": None,
    "groupsExpanded": {},
    "useGroupedValuesInCharts": True,
    "viewMaximized": False,
    "runListHidden": False,
    "isAccordionReordered": False,
    "autoRefreshEnabled": True,
    "globalLineChartConfig": {"xAxisKey": "step", "selectedXAxisMetricKey": "", "lineSmoothness": 0},
}
"""What a view leaves as it is: where it is missing, the pages of MLflow 3.10 to 3.12 fail."""


def views(start: RunStart, run_id: str) -> dict[str, str]:
    """The experiment's tags, by name, that hold the views of a study's run."""
    if start.kind != "study":
        return {}
    children = f"tags.mlflow.parentRunId = '{run_id}'"
    metric = str(start.params.get("objective", "val/loss"))
    trials = _view(
        f"{children} AND tags.lrsearch.stage != 'range-test'",
        order="metrics.`objective`",
        ascending=start.params.get("direction") != "maximize",
        params=("stage", "lr", "schedule", "seed"),
        metrics=("objective", "diverged"),
        charts=[_against_lr("objective"), _by_step(metric), _by_step("train/loss"), _by_step("lr")],
    )
    sweeps = _view(
        f"{children} AND tags.lrsearch.stage = 'range-test'",
        order="params.`seed`",
        params=("seed", "schedule.min_lr", "schedule.max_lr", "steps"),
        metrics=("suggested_lr", "bracket_low", "bracket_high"),
        charts=[_by_lr("train/loss"), _by_lr("train/loss_smoothed"), _by_step("train/loss"), _by_step("lr")],
    )
    found = {"trials": trials, "range-test": sweeps}
    return {f"{_TAG}{start.key}-{name}": json.dumps(view) for name, view in found.items()}


def run_page(experiment_id: str, run_id: str) -> str:
    """The address of a run within MLflow's UI."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def view_page(experiment_id: str, key: str, name: str) -> str:
    """The address of a view within MLflow's UI: ``trials`` or ``range-test``, each also with ``-charts``."""
    view = name.removesuffix("-charts")
    charts = "&compareRunsMode=CHART" if name != view else ""
    page = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    return f"{page}&viewStateShareKey={key}-{view}{charts}"


def _view(
    condition: str,
    order: str,
    params: tuple[str, ...],
    metrics: tuple[str, ...],
    charts: list[dict[str, Any]],
    ascending: bool = True,
) -> dict[str, Any]:
    columns = [f"params.`{name}`" for name in params] + [f"metrics.`{name}`" for name in metrics]
    return _DEFAULTS | {
        "searchFilter": condition,
        "orderByKey": order,  # by time, MLflow folds the children away below their parent
        "orderByAsc": ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [
            {"uuid": f"{_SECTION}-{number}", "metricSectionId": _SECTION, "deleted": False, **chart}
            for number, chart in enumerate(charts)
        ],
        "compareRunSections": [
            {"uuid": _SECTION, "name": _SECTION, "display": True, "deleted": False, "columns": 2}
        ],
        "hideEmptyCharts": False,
    }


def _by_step(metric: str) -> dict[str, Any]:
    return _line(metric, {"xAxisKey": "step"}) | {"displayName": f"{metric} by step"}


def _by_lr(metric: str) -> dict[str, Any]:
    axis = {
        "xAxisKey": "metric",
        "selectedXAxisMetricKey": "lr",
    }  # MLflow draws it linear: the step is log lr
    return _line(metric, axis) | {"displayName": f"{metric} against lr"}


def _line(metric: str, axis: Mapping[str, Any]) -> dict[str, Any]:
    own = {"useGlobalXaxisKey": False, "useGlobalLineSmoothing": False, "lineSmoothness": 0}
    return {
        "type": "LINE",
        "runsCountToCompare": 100,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "scaleType": "linear",
        **own,
        **axis,
    }


def _against_lr(metric: str) -> dict[str, Any]:
    return {
        "type": "SCATTER",
        "runsCountToCompare": 100,
        "displayName": f"{metric} against lr",
        "xaxis": {"key": "lr", "type": "PARAM"},
        "yaxis": {"key": metric, "type": "METRIC"},
    }
