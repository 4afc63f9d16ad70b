"""Which learning rate, and does it need decay? A tracked range test and search for PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrsearch.core.curve import RangeTestCurve as RangeTestCurve
    from lrsearch.core.study_plan import StudyPlan as StudyPlan
    from lrsearch.core.suggest import Suggestion as Suggestion
    from lrsearch.errors import InputError as InputError
    from lrsearch.errors import LrsearchError as LrsearchError
    from lrsearch.errors import RecordError as RecordError
    from lrsearch.errors import StopTrial as StopTrial
    from lrsearch.errors import StudyError as StudyError
    from lrsearch.errors import TrackingError as TrackingError
    from lrsearch.search.compare import ComparisonResult as ComparisonResult
    from lrsearch.search.compare import compare as compare
    from lrsearch.search.range_test import range_test as range_test
    from lrsearch.search.range_test_result import RangeTest as RangeTest
    from lrsearch.search.reproduce import reproduce as reproduce
    from lrsearch.search.study import resume as resume
    from lrsearch.search.study import search as search
    from lrsearch.search.study_result import StudyResult as StudyResult
    from lrsearch.search.study_result import load as load
    from lrsearch.training.metrics import whole as whole
    from lrsearch.training.state import preserve_state as preserve_state
    from lrsearch.training.task import Task as Task
    from lrsearch.training.trial import Trial as Trial

_HOMES = {
    "ComparisonResult": "search.compare",
    "InputError": "errors",
    "LrsearchError": "errors",
    "RangeTest": "search.range_test_result",
    "RangeTestCurve": "core.curve",
    "RecordError": "errors",
    "Suggestion": "core.suggest",
    "Task": "training.task",
    "TrackingError": "errors",
    "Trial": "training.trial",
    "StopTrial": "errors",
    "StudyError": "errors",
    "StudyPlan": "core.study_plan",
    "StudyResult": "search.study_result",
    "compare": "search.compare",
    "load": "search.study_result",
    "preserve_state": "training.state",
    "range_test": "search.range_test",
    "reproduce": "search.reproduce",
    "resume": "search.study",
    "search": "search.study",
    "whole": "training.metrics",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # A name is looked up on its first use: importing lrsearch costs next to nothing.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name != "search":  # a room too: the import has set the name to the callable module
        globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
