"""A result by its name, read from its folder."""

from __future__ import annotations

from typing import Any

from lrsearch.study.config import load_config
from lrsearch.study.files import read_result
from lrsearch.study.result import StudyResult
from lrsearch.tracking.folder import StudyFolder, find_folder
from lrsearch.tracking.reading import read_start


def load_study(folder: StudyFolder) -> StudyResult:
    """Reads a finished study from its folder; RecordError where a file is missing or damaged."""
    config = load_config(folder)
    answer, stages = read_result(folder)
    starts = [read_start(path) for path in folder.journals()]
    key = next((start.key for start in starts if start.kind == "study"), None)
    return StudyResult(folder.name, answer, stages, config, folder, key=key)


def load(name: str) -> Any:
    """Load the result of an earlier study or range test.

    Parameters
    ----------
    name : str
        Its name, or the path of its folder.

    Returns
    -------
    StudyResult or RangeTest
        The result, read from its folder.

    Raises
    ------
    InputError
        For an unknown name; the message lists those there are.
    RecordError
        For a study or range test that is not finished, or damaged.

    Examples
    --------
    Here "small" is the name of a study that is finished:

    >>> import lrsearch
    >>> lrsearch.load("small")
    StudyResult('small', lr=..., schedule=..., cost=...)
    """
    from lrsearch.study.sweep_result import load_range_test

    folder = find_folder(name)
    return load_study(folder) if folder.plan.is_file() else load_range_test(folder)
