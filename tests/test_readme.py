"""The README is run and checked: what it shows works, and its help is the commands' own."""

from __future__ import annotations

import linecache
import re
import shlex
from pathlib import Path
from typing import get_args

import matplotlib as mpl
import pytest
from typer.main import get_command

from lrsearch.cli import app
from lrsearch.core.answer import WarningName
from lrsearch.core.presets import load_plan
from lrsearch.study.prepare import with_whole_schedules
from tests.readme import PAGES, README, rendered

TEXT = README.read_text(encoding="utf-8")


def test_python_snippets_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    mpl.use("agg")
    snippets = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    namespace: dict[str, object] = {}
    for number, snippet in enumerate(snippets):
        name = f"<snippet {number}>"  # its source is found, as that of a notebook's cell
        monkeypatch.setitem(linecache.cache, name, (len(snippet), None, snippet.splitlines(True), name))
        exec(compile(snippet, name, "exec"), namespace)
    suggestion = namespace["curve"].suggestion  # type: ignore[attr-defined]
    assert len(snippets) >= 3
    assert suggestion.lr is not None, suggestion.reason


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_generated_parts_of_a_page_are_what_the_commands_and_the_benchmarks_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "begin -->" in text
    # How wide a column is, and so where a line breaks, differs between releases of rich and typer.
    assert _words(rendered(text)) == _words(text), "run python -m tests.readme"


def _words(text: str) -> list[str]:
    return text.replace("│", " ").split()


def test_commands_and_options_in_the_readme_exist() -> None:
    group = get_command(app)
    lines = [
        line
        for block in re.findall(r"```console\n(.*?)```", TEXT, flags=re.DOTALL)
        for line in block.splitlines()
    ]
    shown = [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ lrsearch ")]
    assert shown
    for words in shown:
        if words[1].startswith("-"):
            continue
        command = group.commands[words[1]]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= known, words


def test_every_command_and_every_option_is_in_the_readme() -> None:
    shown = re.compile(r"^\$ lrsearch ([\w-]+) --help\n(.*?)(?=^\$ |^```)", re.DOTALL | re.MULTILINE)
    helped = dict(shown.findall(TEXT))
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(helped) == set(commands)
    for name, command in commands.items():
        options = {option for parameter in command.params for option in parameter.opts if option[:2] == "--"}
        assert [option for option in options if option not in helped[name]] == [], name


def test_plans_in_the_readme_are_plans(tmp_path: Path) -> None:
    plans = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert plans
    for number, text in enumerate(plans):
        path = tmp_path / f"{number}.toml"
        path.write_text(text, encoding="utf-8")
        assert with_whole_schedules(load_plan(path), 1000, 100).budget == 30


def test_every_warning_is_in_the_readme() -> None:
    listed = re.findall(r"^\| `(\w+)` \| ", TEXT, flags=re.MULTILINE)
    assert set(get_args(WarningName)) <= set(listed)


def test_make_verbs_in_the_readme_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for verb in re.findall(r"(?:`|\$ )make (\w+)", TEXT):
        assert f"\n{verb}:" in makefile, verb
