"""Where a run comes from: versions, machine, code and command. No secret is among it."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_PACKAGES = ("lrsearch", "torch", "mlflow", "optuna", "numpy")
_ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTHONHASHSEED",
    "SLURM_JOB_ID",
)
_SECRET_NAME = re.compile("passw|passphrase|token|secret|credential|api_?key|access_?key", re.IGNORECASE)
_SHORTEST_SECRET = 6
_USERINFO = re.compile(r"(?<=://)([^\s/?#:@]*):([^\s/?#]*)@")
_SECRET_FIELD = re.compile(
    r"(?<=[?&])([^\s=&#]*(?:pass|pwd|token|secret|key|credential|signature)[^\s=&#]*)=([^\s&#]*)",
    re.IGNORECASE,
)


def collect() -> dict[str, Any]:
    """What is known of this process, as plain JSON; what is not known is None."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "count": os.cpu_count()},
        "git": _git(),
        "command": shlex.join(redact(word) for word in sys.argv),
        "user": _user(),
        "host": socket.gethostname(),
        "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }


def clean(text: str) -> str:
    """A text without passwords in URLs and without the secrets that the environment holds now."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return redact(text)


def redact(uri: str) -> str:
    """A URL, or a text with URLs, without passwords and the values of secret query fields."""
    return _SECRET_FIELD.sub(r"\1=", _USERINFO.sub(r"\1@", uri))


def secrets_in(uri: str) -> list[str]:
    """The parts of a URL that `redact` takes out, as they are written and decoded; longest first."""
    written = [found[2] for found in _USERINFO.finditer(uri)] + [
        found[2] for found in _SECRET_FIELD.finditer(uri)
    ]
    return sorted({form for word in written if word for form in (word, unquote(word))}, key=len, reverse=True)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or None


def _git() -> dict[str, Any]:
    commit = _git_answer("rev-parse", "HEAD")
    status = _git_answer("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _git_answer(*words: str) -> str | None:
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return None
