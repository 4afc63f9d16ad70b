"""What holds for every test: one torch thread, a place of its own, and no setting of the user's MLflow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tracking.store import Store

CHECKOUT = Path(__file__).parents[1]

os.environ.update(OMP_NUM_THREADS="1", MLFLOW_DISABLE_TELEMETRY="true")  # the processes we start inherit it
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is written into the checkout; returns the folder of all records."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LRSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store with its tables and nothing in them: making one takes seconds, copying it nothing."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    code = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{database}').search_experiments()"
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, capture_output=True, cwd=database.parent
    )
    return database


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> Store:
    return Store(Path(shutil.copy(migrated, tmp_path / "mlflow.db")))
