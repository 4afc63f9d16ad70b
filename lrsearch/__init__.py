"""Which learning rate, and does it need decay? A tracked range test and search for PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrsearch.core.curve import RangeTestCurve as RangeTestCurve
    from lrsearch.core.study_plan import StudyPlan as StudyPlan
    from lrsearch.core.suggestion import Suggestion as Suggestion
    from lrsearch.errors import InputError as InputError
    from lrsearch.errors import LrsearchError as LrsearchError
    from lrsearch.errors import RecordError as RecordError
    from lrsearch.errors import StopTrial as StopTrial
    from lrsearch.errors import StudyError as StudyError
    from lrsearch.errors import TrackingError as TrackingError
    from lrsearch.study.compare import ComparisonResult as ComparisonResult
    from lrsearch.study.compare import compare as compare
    from lrsearch.study.load import load as load
    from lrsearch.study.reproduce import reproduce as reproduce
    from lrsearch.study.result import StudyResult as StudyResult
    from lrsearch.study.search import resume as resume
    from lrsearch.study.search import search as search
    from lrsearch.study.surface_sampler import SurfaceSampler as SurfaceSampler
    from lrsearch.study.sweep import range_test as range_test
    from lrsearch.study.sweep_result import RangeTest as RangeTest
    from lrsearch.training.metrics import whole as whole
    from lrsearch.training.snapshot import preserve_state as preserve_state
    from lrsearch.training.task import Task as Task
    from lrsearch.training.trial import Trial as Trial

_HOMES = {
    "ComparisonResult": "study.compare",
    "InputError": "errors",
    "LrsearchError": "errors",
    "RangeTest": "study.sweep_result",
    "RangeTestCurve": "core.curve",
    "RecordError": "errors",
    "Suggestion": "core.suggest",
    "SurfaceSampler": "study.surface_sampler",
    "Task": "training.task",
    "TrackingError": "errors",
    "Trial": "training.trial",
    "StopTrial": "errors",
    "StudyError": "errors",
    "StudyPlan": "core.study_plan",
    "StudyResult": "study.result",
    "compare": "study.compare",
    "load": "study.load",
    "preserve_state": "training.snapshot",
    "range_test": "study.sweep",
    "reproduce": "study.reproduce",
    "resume": "study.search",
    "search": "study.search",
    "whole": "training.metrics",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # A name is looked up on its first use: importing lrsearch costs next to nothing.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
