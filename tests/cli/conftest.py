"""Commands leave mirrors behind whose server never comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


@pytest.fixture(autouse=True)
def no_mirror_stays(tmp_path: Path) -> Iterator[None]:
    """Ends those of this test."""
    yield
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "lrsearch.tracking.mlflow.mirror" in words and words[-1].startswith(f"{tmp_path}{os.sep}"):
            process.kill()
