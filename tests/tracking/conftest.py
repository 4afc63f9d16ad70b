from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrsearch.tracking.folder import StudyFolder, create_folder
from lrsearch.tracking.sync import Destination
from tests.tracking.postgres import PostgresStore, serving_postgres
from tests.tracking.runs import end_mirrors
from tests.tracking.server import serving, serving_store
from tests.tracking.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StudyFolder]:
    made = create_folder("study", out=tmp_path / "study")
    yield made
    end_mirrors(tmp_path)


@pytest.fixture
def destination(store: Store) -> Destination:
    return Destination(store.uri, "lrsearch/test")


@pytest.fixture(scope="session")
def server(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Store]]:
    """A real MLflow server: its port, and the database behind it."""
    database = Path(shutil.copy(migrated, tmp_path_factory.mktemp("server") / "mlflow.db"))
    with serving(database) as port:
        yield port, Store(database)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, PostgresStore]]:
    """The same on PostgreSQL."""
    with (
        serving_postgres() as store,
        serving_store(store.uri, tmp_path_factory.mktemp("postgres-server")) as port,
    ):
        yield port, store
