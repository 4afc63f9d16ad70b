"""What `help()` shows of the public names: complete, true of the signature, with examples that run."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any

import matplotlib as mpl
import pytest
import torch
from torch import nn

import lrsearch
from lrsearch.study.task_source import load_task
from lrsearch.tracking.folder import find_folder
from tests.study.tasks import NOWHERE, end_own_mirror

TASK = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lrsearch

def task() -> lrsearch.Task:
    inputs = torch.randn(160, 4, generator=torch.Generator().manual_seed(0))
    targets = inputs.sum(1, keepdim=True) + torch.randn(160, 1, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(inputs, targets)
    return lrsearch.Task(
        model=lambda: nn.Linear(4, 1),
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        loss=nn.MSELoss(),
        train_loader=DataLoader(data, batch_size=8, shuffle=True),
        val_loader=DataLoader(data, batch_size=160),
    )
"""
STUDIED = {"load", "resume", "compare", "reproduce", "StudyResult", "ComparisonResult", "RecordError"}
"""Their examples read the studies that `studied` makes."""
SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "References", "Examples")
DESCRIBED = (FunctionType, classmethod, property, cached_property)
ERRORS = {"InputError", "StudyError", "RecordError", "StopTrial"}
"""Those that a section Raises speaks of."""


def members() -> Iterator[tuple[str, Any]]:
    """Every public name, and every public method and property of a class that lrsearch wrote."""
    for name in lrsearch.__all__:
        public = getattr(lrsearch, name)
        yield name, public
        bases = public.__mro__ if inspect.isclass(public) else ()
        ours = (vars(base) for base in bases if base.__module__.startswith("lrsearch."))
        for attribute, value in (item for own in ours for item in own.items()):
            if not attribute.startswith("_") and isinstance(value, DESCRIBED):
                yield f"{name}.{attribute}", value


MEMBERS = dict(members())
FUNCTIONS = [name for name, value in MEMBERS.items() if isinstance(value, FunctionType | classmethod)]


def function_of(name: str) -> Any:
    value = MEMBERS[name]
    return inspect.unwrap(value.__func__ if isinstance(value, classmethod) else value)


def sections(name: str) -> dict[str, str]:
    """The sections of a docstring by name, its beginning under the empty one."""
    text = inspect.cleandoc(MEMBERS[name].__doc__)
    parts = re.split(r"^(\w+)\n-+$", text, flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


# --- the examples -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of "small" and "wide", finished, and of "half-done", which has no answer yet."""
    place = tmp_path_factory.mktemp("docstrings")
    (place / "line.py").write_text(TASK, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("LRSEARCH_HOME", str(place / "home"))
        lrsearch.search(
            load_task("line.py:task"),
            "small",
            steps=20,
            plan="quick",
            device="cpu",
            progress=False,
            source=("line.py:task", ()),
            tracking_uri=NOWHERE,
        )
        end_own_mirror("small")
        for copied in ("wide", "half-done"):  # quicker than another study, and the examples do not mind
            shutil.copytree(find_folder("small").path, place / "home" / copied)
        find_folder("half-done").result.unlink()
    return place


@pytest.mark.parametrize("name", lrsearch.__all__)
def test_the_examples_run(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mpl.use("agg")
    optimizer = torch.optim.SGD(nn.Linear(4, 1).parameters(), lr=0.1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    if name in STUDIED:
        place = request.getfixturevalue("studied")
        monkeypatch.setenv("LRSEARCH_HOME", str(place / "home"))
        monkeypatch.chdir(place)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    told: list[str] = []
    public = getattr(lrsearch, name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(public, name, globs={"optimizer": optimizer}):
        runner.run(test, out=told.append)
    end_own_mirror("example")
    assert runner.tries > 0, f"{name} has no example"
    assert not runner.failures, "".join(told)


# --- the sections -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEMBERS)
def test_it_begins_with_one_sentence(name: str) -> None:
    first, *rest = inspect.cleandoc(MEMBERS[name].__doc__).splitlines()
    assert first.endswith("."), first
    assert not rest or not rest[0], "a blank line follows the first one"
    if name in FUNCTIONS:
        verb = first.split()[0]
        assert verb.istitle(), verb
        assert not verb.endswith("s"), f"{verb} is not imperative"
        assert verb not in ("A", "An", "The", "What", "How", "One"), f"{verb} is no verb"
    assert list(sections(name))[1:] == [part for part in SECTIONS if part in sections(name)], "their order"


@pytest.mark.parametrize("name", [n for n, v in MEMBERS.items() if n in FUNCTIONS or inspect.isclass(v)])
def test_it_names_every_parameter_of_its_signature(name: str) -> None:
    value = MEMBERS[name]
    wanted = []
    if not (inspect.isclass(value) and issubclass(value, Exception) and "__init__" not in vars(value)):
        signature = inspect.signature(value if inspect.isclass(value) else function_of(name))
        wanted = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    headers = re.findall(r"^(\S.*?) : ", sections(name).get("Parameters", ""), flags=re.MULTILINE)
    named = [word for header in headers for word in header.split(", ")]
    assert sorted(named) == sorted(stars.get(p.kind, "") + p.name for p in wanted)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_says_what_it_returns(name: str) -> None:
    returns = inspect.signature(function_of(name)).return_annotation
    said = {"Returns", "Yields"} & set(sections(name))
    assert len(said) == (returns not in (None, "None"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_says_what_its_body_raises(name: str) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function_of(name))))
    raised = {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
    }
    said = re.findall(r"^(\w+)$", sections(name).get("Raises", ""), flags=re.MULTILINE)
    assert (raised & ERRORS) <= set(said)


@pytest.mark.parametrize("name", ["search", "range_test", "resume", "load", "compare", "reproduce", "Task"])
def test_it_says_that_a_wrong_argument_is_an_input_error(name: str) -> None:
    assert "InputError" in sections(name)["Raises"]


def test_methods_and_properties_were_looked_at() -> None:
    assert {"StudyResult.report", "RangeTest.wait", "RangeTestCurve.smoothed", "Trial.report"} <= set(MEMBERS)
    assert {"StudyPlan.costs", "Suggestion.from_dict", "preserve_state", "Task.build"} <= set(FUNCTIONS)


# --- the signatures ---------------------------------------------------------------------------------------

BEFORE_AND_AFTER = """
import contextlib, inspect, io, lrsearch

def shown():
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        help(lrsearch.search)
    return str(inspect.signature(lrsearch.search)), text.getvalue()

before = shown()
try:
    lrsearch.search(None, "no-task")
except lrsearch.InputError:
    pass
import lrsearch.study.search
assert shown() == before, "changed by its use"
assert inspect.isfunction(lrsearch.search) and lrsearch.search is lrsearch.study.search.search
signature, text = before
assert signature.startswith("(task: ") and "epochs: " in signature, signature
assert "*args" not in signature and "*args" not in text
assert text.splitlines()[2].startswith("search(") and "Search the learning rate" in text, text
"""


def test_help_shows_the_real_signature_before_and_after_the_first_use() -> None:
    done = subprocess.run([sys.executable, "-c", BEFORE_AND_AFTER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "." not in name])
def test_no_signature_hides_its_arguments(name: str) -> None:
    parameters = inspect.signature(getattr(lrsearch, name)).parameters
    assert parameters
    assert not {"args", "kwargs"} & set(parameters)
