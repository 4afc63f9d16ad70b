from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lrsearch.tracking.provenance import collect, redact, secrets_in


@pytest.mark.parametrize(
    ("uri", "shown", "secrets"),
    [
        ("sqlite:////a/b/mlflow.db", "sqlite:////a/b/mlflow.db", []),
        ("databricks", "databricks", []),
        ("http://host:5000/path", "http://host:5000/path", []),
        ("http://ada@host", "http://ada@host", []),
        ("http://ada:p%40w@host:5000", "http://ada@host:5000", ["p%40w", "p@w"]),
        ("http://:pw@host", "http://@host", ["pw"]),
        ("postgresql://ada:p:w@x@host/db", "postgresql://ada@host/db", ["p:w@x"]),
        ("postgresql://host/db?password=pw&sslmode=a", "postgresql://host/db?password=&sslmode=a", ["pw"]),
        ("http://host/?b=1&API_TOKEN=t0k", "http://host/?b=1&API_TOKEN=", ["t0k"]),
        ("--tracking-uri=http://ada:pw@host", "--tracking-uri=http://ada@host", ["pw"]),
    ],
)
def test_passwords_are_taken_out_of_urls(uri: str, shown: str, secrets: list[str]) -> None:
    assert (redact(uri), secrets_in(uri)) == (shown, secrets)


def test_provenance_is_plain_json_without_the_environments_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hidden-1")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr("sys.argv", ["train.py", "--tracking-uri", "http://ada:hidden-2@host"])
    facts = collect()
    text = json.dumps(facts, allow_nan=False)
    assert "hidden" not in text
    assert facts["environment"]["OMP_NUM_THREADS"] == "3"
    assert facts["command"] == "train.py --tracking-uri http://ada@host"
    assert facts["versions"]["mlflow"]


def test_git_tells_the_commit_and_whether_files_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert collect()["git"] == {"commit": None, "dirty": None}
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "train.py").write_text("lr = 1")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "train.py"], check=True)
    subprocess.run(["git", *identity, "commit", "-qm", "x"], check=True)
    clean = collect()["git"]
    (tmp_path / "train.py").write_text("lr = 2")
    assert len(clean["commit"]) == 40
    assert (clean["dirty"], collect()["git"]["dirty"]) == (False, True)
