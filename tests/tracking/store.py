"""What an MLflow database really holds, read as rows: no client comes between that could hide a double."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def empty_store(database: Path) -> Path:
    """A SQLite store with its tables and nothing in them: making one takes seconds, copying it nothing."""
    code = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{database}').search_experiments()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=database.parent)
    return database


@dataclass(frozen=True)
class Store:
    database: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.database}"

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as connection:
            return connection.execute(query, values).fetchall()

    def run_ids(self, key: str) -> list[str]:
        found = self.rows("SELECT run_uuid FROM tags WHERE key = 'lrsearch.key' AND value = ?", key)
        return [row[0] for row in found]

    def run_id(self, key: str) -> str:
        (run_id,) = self.run_ids(key)
        return str(run_id)

    def status(self, key: str) -> str:
        return str(self.rows("SELECT status FROM runs WHERE run_uuid = ?", self.run_id(key))[0][0])

    def points(self, key: str, metric: str) -> list[tuple[int, float, int]]:
        """Step, value and milliseconds of every row of a metric, by step."""
        query = "SELECT step, value, timestamp FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step"
        return self.rows(query, self.run_id(key), metric)

    def params(self, key: str) -> dict[str, str]:
        return dict(self.rows("SELECT key, value FROM params WHERE run_uuid = ?", self.run_id(key)))

    def tags(self, key: str) -> dict[str, str]:
        return dict(self.rows("SELECT key, value FROM tags WHERE run_uuid = ?", self.run_id(key)))

    def experiment(self, key: str) -> str:
        query = "SELECT experiments.name FROM experiments JOIN runs USING (experiment_id) WHERE run_uuid = ?"
        return str(self.rows(query, self.run_id(key))[0][0])

    def artifacts(self, key: str) -> Path:
        uri = self.rows("SELECT artifact_uri FROM runs WHERE run_uuid = ?", self.run_id(key))[0][0]
        return Path(str(uri).removeprefix("file://"))
