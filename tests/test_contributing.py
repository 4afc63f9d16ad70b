"""CONTRIBUTING is true: its map is the package, its keys are in the code, its paths and verbs exist."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
TEXT = (CHECKOUT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGE = CHECKOUT / "lrsearch"


def part(name: str) -> str:
    """What stands between the marks of this name."""
    found = re.search(rf"<!-- {name}: begin -->\n(.*?)<!-- {name}: end -->", TEXT, flags=re.DOTALL)
    assert found is not None
    return found[1]


def mapped() -> list[str]:
    """The modules of the map, as paths; a line is indented below its room."""
    modules, rooms = [], list[str]()
    for line in part("map").strip().splitlines()[1:-1]:
        place, _, said = line.strip().partition(" ")
        assert said.strip(), f"{place} is not described"
        del rooms[(len(line) - len(line.lstrip())) // 2 :]
        if place.endswith("/"):
            rooms.append(place)
        else:
            modules.append("".join([*rooms, place]))
    return modules


def test_the_map_is_the_package() -> None:
    modules = mapped()
    there = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    there = {path for path in there if not path.endswith("__init__.py")}
    assert len(modules) == len(set(modules))
    assert sorted(there - set(modules)) == [], "not in the map"
    assert sorted(set(modules) - there) == [], "in the map, and nowhere else"


def test_every_path_exists() -> None:
    paths = re.findall(r"`((?:\w+/)*\w+\.(?:py|html\.j2|toml))`", TEXT.replace(part("map"), ""))
    assert len(paths) > 20
    for path in set(paths):
        assert (PACKAGE / path).exists() or (CHECKOUT / path).exists(), path


def test_every_name_is_in_the_file_it_is_said_to_be_in() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    prose = TEXT.replace(part("map"), "").replace(part("keys"), "")
    names = set(re.findall(r"`(\w*[A-Z_]\w*)`", prose)) - {"MLflow"}
    assert len(names) > 15
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", code)] == []


def test_every_key_of_mlflow_is_in_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    parts = {
        word for key in re.findall(r"`([^`]+)`", part("keys")) for word in re.split(r"<\w+>", key) if word
    }
    assert len(parts) > 50
    # The winner and the constant lr are labels, put behind the test's metrics.
    parts = parts - {"_winner", "_constant", "test/", "val/", "schedule.", "plots/response.png"} | {
        '"winner"'
    }
    assert [key for key in sorted(parts) if key not in code] == []


def test_make_verbs_exist() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    verbs = set(re.findall(r"`make ([\w-]+)`", TEXT))
    assert verbs
    for verb in verbs:
        assert re.search(rf"^(\S+ )*{verb}( \S+)*:", makefile, flags=re.MULTILINE), verb
