"""Which packages a fresh interpreter loads."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {
    "torch",
    "mlflow",
    "optuna",
    "matplotlib",
    "pandas",
    "scipy",
    "numpy",
    "pydantic",
    "rich",
    "typer",
    "sklearn",
    "psutil",
    "filelock",
}


def loaded_by(code: str) -> set[str]:
    """Those of the heavy packages that a fresh interpreter has loaded after the code."""
    program = f"import sys\n{code}\nimport json\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return HEAVY & set(json.loads(done.stderr.splitlines()[-1]))
