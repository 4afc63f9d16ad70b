"""A PostgreSQL server of a test's own, from the programs that the package `pgserver` carries."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from tests.tracking.store import Store

_NOBODY = 65534  # the server refuses to run as root


class PostgresStore(Store):
    """An MLflow database of such a server; `database` is the folder of the server's socket."""

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg://postgres@/postgres?host={self.database}"

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._address, autocommit=True) as connection:
            return connection.execute(query.replace("?", "%s").encode(), values).fetchall()

    def execute(self, statement: str) -> None:
        with psycopg.connect(self._address, autocommit=True) as connection:
            connection.execute(statement.encode())

    @property
    def _address(self) -> str:
        return f"host={self.database} user=postgres options='-c default_transaction_read_only=off'"


@contextmanager
def serving_postgres() -> Iterator[PostgresStore]:
    """An empty database; the server listens on a socket in a folder of its own, and nowhere else."""
    place = Path(tempfile.mkdtemp(prefix="lrsearch-"))  # a socket's path must be short
    site = _site_packages()
    options: dict[str, Any] = {"cwd": place, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if os.getuid() == 0:
        for part in ("pgserver", "pgserver.libs"):  # where they lie, nobody may be shut out
            shutil.copytree(site / part, place / part)
        site = place
        os.chown(place, _NOBODY, _NOBODY)
        options |= {"user": _NOBODY, "group": _NOBODY}
    programs, data = site / "pgserver" / "pginstall" / "bin", place / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        **options,
    )
    settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={place}", "-c", "fsync=off"]
    with subprocess.Popen([programs / "postgres", "-D", data, *settings], **options) as process:
        try:
            store = PostgresStore(place)
            _wait(store)
            yield store
        finally:
            process.send_signal(signal.SIGINT)
    shutil.rmtree(place)


def _site_packages() -> Path:
    found = find_spec("pgserver")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("pgserver carries the PostgreSQL that this test needs")
    return Path(found.origin).parents[1]


def _wait(store: PostgresStore) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            store.rows("SELECT 1")
            return
        if time.monotonic() > deadline:
            raise TimeoutError("PostgreSQL does not answer")
        time.sleep(0.05)
