from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
import pytest

from lrsearch.tracking.entries import Param, RunStart, as_params, from_line, to_line


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("sgd", "sgd"),
        (64, 64),
        (0.5, 0.5),
        (True, True),
        ([64, 32], "[64, 32]"),
        ((0.9, 0.999), "[0.9, 0.999]"),
        ({"depth": 2}, '{"depth": 2}'),
        (PurePosixPath("data/x"), "data/x"),
        (np.int64(3), "3"),
        (float("inf"), "inf"),
    ],
)
def test_any_value_of_a_users_becomes_a_param_that_comes_back(value: object, param: Param) -> None:
    start = RunStart("run", "trial", "study", params=as_params({"value": value}))
    read = from_line(to_line(start))
    assert isinstance(read, RunStart)
    assert read.params == {"value": param}


def test_what_is_absent_is_no_param() -> None:
    assert as_params({"clip": None, "seed": 0}) == {"seed": 0}
