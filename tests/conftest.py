"""What holds for every test: one torch thread, a place of its own, and no setting of the user's MLflow."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lrsearch.cli import main
from lrsearch.schedules import registry
from tests.tracking.store import Store, empty_store

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


@pytest.fixture(autouse=True)
def families() -> Iterator[None]:
    """The schedules that a test registers are forgotten after it."""
    known = dict(registry._families)
    yield
    registry._families.clear()
    registry._families.update(known)


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs ``lrsearch WORDS …`` in this process, which gets its signals and its warnings back afterwards."""
    terminate = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["lrsearch", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Answer(ended.value.code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, terminate)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store to copy."""
    return empty_store(tmp_path_factory.mktemp("store") / "mlflow.db")


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> Store:
    return Store(Path(shutil.copy(migrated, tmp_path / "mlflow.db")))
