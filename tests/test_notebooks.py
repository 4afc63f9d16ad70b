"""The notebooks run from top to bottom, and are committed without what a run leaves in them."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
KERNEL = "lrsearch-tests"
TIMEOUT_S = 300  # for one cell, on a busy machine
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|tmp|work|mnt|opt|private|var)/|\b[A-Za-z]:\\")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@every_notebook
def test_notebook_runs_without_an_error_and_without_a_warning(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(this_interpreter(tmp_path / "jupyter")))  # comes before all others
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    place = tmp_path / "cwd"
    place.mkdir()
    client = NotebookClient(
        notebook,
        kernel_name=KERNEL,
        timeout=TIMEOUT_S,
        resources={"metadata": {"path": str(place)}},
    )

    client.execute(env=clean_environment(tmp_path))

    assert printed_to_stderr(notebook) == []


@every_notebook
def test_committed_notebook_holds_no_outputs_and_no_counts(path: Path) -> None:
    cells = [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in cells if cell["outputs"] or cell["execution_count"] is not None] == []


@every_notebook
def test_committed_notebook_names_no_path_of_a_machine(path: Path) -> None:
    assert MACHINE_PATH.findall("\n".join(texts(read(path)))) == []


@pytest.mark.parametrize("text", ["open('/home/me/x')", "/tmp/a.db", "see C:\\data", "sqlite:////opt/m.db"])
def test_a_path_of_a_machine_is_recognised(text: str) -> None:
    assert MACHINE_PATH.search(text)


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def texts(value: Any) -> list[str]:
    """Every text in a JSON value, keys apart."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in texts(part)]
    return [value] if isinstance(value, str) else []


def printed_to_stderr(notebook: Any) -> list[str]:
    """What a reader would see in red: warnings, and logs of other packages."""
    return [
        output["text"]
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream" and output["name"] == "stderr"
    ]


def this_interpreter(folder: Path) -> Path:
    """A Jupyter data folder whose kernel is this very Python, whatever kernels the machine has."""
    spec = folder / "kernels" / KERNEL
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "tests", "language": "python"}), encoding="utf-8"
    )
    return folder


def clean_environment(folder: Path) -> dict[str, str]:
    """Ours without what would send a notebook's record elsewhere, or change how it looks."""
    foreign = ("MLFLOW_", "LRSEARCH_", "MPL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
