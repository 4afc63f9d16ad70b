"""Two studies that begin at the same time, in two processes, on one MLflow file that is not there yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.tracking.runs import CHECKOUT
from tests.tracking.store import Store

STUDY = """
import sys
import lrsearch
from tests.study.tasks import PLAN, Known
name, uri = sys.argv[1:]
result = lrsearch.search(Known(), name, steps=60, plan=PLAN, tracking_uri=uri, progress=False)
assert result.wait(120), result.tracking
print(result.key, len(result.trials))
"""


def test_two_studies_on_one_fresh_file_both_finish(tmp_path: Path, home: Path) -> None:
    fresh = Store(tmp_path / "mlflow.db")
    words = [sys.executable, "-c", STUDY]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    processes = [
        subprocess.Popen([*words, name, fresh.uri], env=environment, stdout=subprocess.PIPE, text=True)
        for name in ("one", "other")
    ]
    said = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    for name, line in zip(("one", "other"), said, strict=True):
        key, trials = line.split()
        assert fresh.status(key) == "FINISHED"
        children = "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?"
        kinds = "SELECT count(*) FROM tags WHERE key = 'lrsearch.kind' AND value = 'trial' AND run_uuid IN"
        assert fresh.rows(f"{kinds} ({children})", fresh.run_id(key)) == [(int(trials),)], name
    assert fresh.rows("SELECT count(*) FROM runs WHERE status <> 'FINISHED'") == [(0,)]
