"""Bad input: one line that names the argument, its value and the mend, before anything is trained."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import StepLR
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import lrsearch
from lrsearch import InputError, Task
from tests.conftest import Command

FEATURES, CLASSES = 6, 3


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """So many rows that can only be iterated."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.rows):
            yield torch.randn(FEATURES), torch.tensor(0)


class Unsized:
    """Can be iterated again and again, without a length."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def loader(
    rows: int = 32, features: int = FEATURES, targets: torch.dtype = torch.int64
) -> DataLoader[tuple[Tensor, ...]]:
    data = TensorDataset(torch.randn(rows, features), torch.randint(CLASSES, (rows,)).to(targets))
    return DataLoader(data, batch_size=4)


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(4, FEATURES), torch.randint(CLASSES, (4,))


def task(**changed: Any) -> Task:
    good: dict[str, Any] = {
        "model": net,
        "optimizer": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        "loss": nn.CrossEntropyLoss(),
        "train_loader": loader(),
    }
    return Task(**{**good, **changed})


def only(**task_arguments: Any) -> dict[str, Any]:
    """A task instead of the parts."""
    return {"model": task(**task_arguments), "optimizer": None, "loss": None, "train_loader": None}


def frozen() -> dict[str, Any]:
    model = net().requires_grad_(False)
    return {"model": model, "optimizer": sgd(model)}


def lazy() -> dict[str, Any]:
    model = nn.Sequential(nn.LazyLinear(8), nn.Linear(8, CLASSES))
    return {"model": model, "optimizer": torch.optim.SGD(model[1].parameters(), lr=0.1)}


def lr_of_zero() -> dict[str, Any]:
    model = net()
    return {"model": model, "optimizer": sgd(model, lr=0.0)}


def scheduled() -> dict[str, Any]:
    model = net()
    optimizer = sgd(model)
    StepLR(optimizer, 10)
    return {"model": model, "optimizer": optimizer}


def lbfgs() -> dict[str, Any]:
    model = net()
    return {"model": model, "optimizer": torch.optim.LBFGS(model.parameters()), "precision": "16"}


def poisoned() -> dict[str, Any]:
    model = net()
    with torch.no_grad():
        model[2].weight.fill_(math.nan)  # type: ignore[operator]
    return {"model": model, "optimizer": sgd(model)}


def below_a_file() -> dict[str, Any]:
    Path("file").write_text("in the way")
    return {"out": "file/record"}


def home_below_a_file() -> dict[str, Any]:
    Path("file").write_text("in the way")
    os.environ["LRSEARCH_HOME"] = "file/home"
    return {}


def in_use() -> dict[str, Any]:
    Path("used").mkdir()
    Path("used/note.txt").write_text("mine")
    return {"out": "used"}


def no_gradient(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs.detach(), targets)


def vector(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def number(outputs: Tensor, targets: Tensor) -> float:
    return nn.functional.cross_entropy(outputs, targets).item()


def gradient_of_nan(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - outputs).abs().sqrt().sum()


def generator(batches: int) -> Iterator[tuple[Tensor, Tensor]]:
    return (batch() for _ in range(batches))


@dataclass(frozen=True)
class Case:
    """What is handed over in place of the good arguments, and what the message must hold."""

    name: str
    given: Callable[[], dict[str, Any]]
    argument: str
    shown: str
    mend: str


def case(name: str, given: Callable[[], dict[str, Any]], argument: str, shown: str, mend: str) -> Any:
    return pytest.param(Case(name, given, argument, shown, mend), id=name)


CASES = [
    # the numbers
    case("min_lr above max_lr", lambda: {"min_lr": 1.0, "max_lr": 0.1}, "min_lr", "1.0", "swap"),
    case("min_lr is max_lr", lambda: {"min_lr": 0.5, "max_lr": 0.5}, "min_lr", "0.5", "widen"),
    case("min_lr zero", lambda: {"min_lr": 0.0}, "min_lr", "0.0", "above 0"),
    case("min_lr negative", lambda: {"min_lr": -1e-3}, "min_lr", "-0.001", "above 0"),
    case("min_lr NaN", lambda: {"min_lr": math.nan}, "min_lr", "nan", "finite"),
    case("min_lr text", lambda: {"min_lr": "small"}, "min_lr", "'small'", "1e-7"),
    case("max_lr infinite", lambda: {"max_lr": math.inf}, "max_lr", "inf", "finite"),
    case("max_lr negative", lambda: {"max_lr": -1}, "max_lr", "-1", "above 0"),
    case("9 steps", lambda: {"steps": 9}, "steps", "9", "at least 10"),
    case("steps zero", lambda: {"steps": 0}, "steps", "0", "at least 10"),
    case("half a step", lambda: {"steps": 99.5}, "steps", "99.5", "at least 10"),
    case("smoothing 1", lambda: {"smoothing": 1.0}, "smoothing", "1.0", "below 1"),
    case("smoothing negative", lambda: {"smoothing": -0.1}, "smoothing", "-0.1", "from 0"),
    case("repeats 0", lambda: {"repeats": 0}, "repeats", "0", "at least 1"),
    case("seed negative", lambda: {"seed": -1}, "seed", "-1", "from 0"),
    case("seed too large", lambda: {"seed": 2**32}, "seed", str(2**32), "2**32 - 1"),
    case("stop unknown", lambda: {"stop": "5x"}, "stop", "'5x'", "'auto', '4x' or 'none'"),
    case("spacing unknown", lambda: {"spacing": "cubic"}, "spacing", "'cubic'", "'log' or 'linear'"),
    case("precision unknown", lambda: {"precision": "8"}, "precision", "'8'", "'bf16'"),
    case("precision a number", lambda: {"precision": 16}, "precision", "16", "'16'"),
    case("clip zero", lambda: {"clip": 0.0}, "clip", "0.0", "above 0"),
    case("clip negative", lambda: {"clip": -1.0}, "clip", "-1.0", "above 0"),
    case("clip NaN", lambda: {"clip": math.nan}, "clip", "nan", "above 0"),
    case("accumulate 0", lambda: {"accumulate": 0}, "accumulate", "0", "at least 1"),
    case("keep unknown", lambda: {"keep": "cloud"}, "keep", "'cloud'", '"disk"'),
    case("device unknown", lambda: {"device": "abacus"}, "device", "'abacus'", "cpu"),
    case("device not there", lambda: {"device": "cuda:99"}, "device", "'cuda:99'", "cpu"),
    case("device a number", lambda: {"device": 1.5}, "device", "1.5", "cpu"),
    # the loader
    case("no loader", lambda: {"train_loader": None}, "train_loader", "None", "DataLoader"),
    case("loader a number", lambda: {"train_loader": 3}, "train_loader", "3", "DataLoader"),
    case("loader empty", lambda: {"train_loader": []}, "train_loader", "[]", "a loader with data"),
    case("no batch, unsized", lambda: {"train_loader": Unsized([])}, "train_loader", "Unsized", "with data"),
    case(
        "stream empty",
        lambda: {"train_loader": DataLoader(Stream(0), batch_size=2)},
        "train_loader",
        "DataLoader",
        "with data",
    ),
    case("generator empty", lambda: {"train_loader": generator(0)}, "train_loader", "generator", "with data"),
    case(
        "generator, repeats",
        lambda: {"train_loader": generator(99), "repeats": 2},
        "repeats",
        "2",
        "DataLoader",
    ),
    case(
        "batch without target",
        lambda: {"train_loader": [torch.ones(4, FEATURES)] * 2},
        "train_loader",
        "float32[4, 6]",
        "step=",
    ),
    case(
        "dict without target",
        lambda: {"train_loader": [{"pixels": torch.ones(4, FEATURES)}] * 2},
        "train_loader",
        "{pixels: float32[4, 6]}",
        "step=",
    ),
    case(
        "wrong width",
        lambda: {"train_loader": loader(features=5)},
        "train_loader",
        "(float32[4, 5], int64[4])",
        "expects",
    ),
    case(
        "labels of floats",
        lambda: {"train_loader": loader(targets=torch.float32)},
        "train_loader",
        "(float32[4, 6], float32[4])",
        "expects",
    ),
    # the loss
    case("loss not callable", lambda: {"loss": "mse"}, "loss", "'mse'", "CrossEntropyLoss"),
    case("step not callable", lambda: {"step": 1}, "step", "1", "step(model, batch)"),
    case("loss a vector", lambda: {"loss": vector}, "loss", "float32[4]", ".mean()"),
    case("loss a float", lambda: {"loss": number}, "loss", "float", "tensor"),
    case("loss None", lambda: {"loss": lambda outputs, targets: None}, "loss", "None", "tensor"),
    case("loss without gradient", lambda: {"loss": no_gradient}, "loss", "has no gradient", "detach"),
    case("loss left out", lambda: {"loss": None}, "loss", "None", "step"),
    case("loss NaN", poisoned, "loss", "nan", "look for NaN"),
    case(
        "gradient NaN under a scaler",
        lambda: {"loss": gradient_of_nan, "precision": "16"},
        "precision",
        "'16'",
        "bf16",
    ),
    # the model and the optimizer
    case("model a name", lambda: {"model": "resnet18"}, "model", "'resnet18'", "nn.Module"),
    case("optimizer missing", lambda: {"optimizer": None}, "optimizer", "None", "Task"),
    case(
        "optimizer a class", lambda: {"optimizer": torch.optim.SGD}, "optimizer", "SGD", "model.parameters()"
    ),
    case(
        "optimizer of another model",
        lambda: {"optimizer": sgd(net())},
        "optimizer",
        "SGD",
        "model.parameters()",
    ),
    case("frozen", frozen, "model", "Sequential", "requires_grad_"),
    case("lazy module", lazy, "model", "0.weight", "one batch"),
    case("lr 0 in the first group", lr_of_zero, "optimizer", "SGD", "positive lr"),
    case("scheduler attached", scheduled, "optimizer", "scheduler", "before building the scheduler"),
    case("LBFGS under a scaler", lbfgs, "precision", "'16'", "bf16"),
    # the folder
    case("out below a file", below_a_file, "out", "'file/record'", "--out"),
    case("home below a file", home_below_a_file, "name", "file/home", "LRSEARCH_HOME"),
    case("out in use", in_use, "out", "'used'", "empty or new folder"),
    # a task
    case(
        "optimizer beside a task",
        lambda: {"model": task(), "loss": None, "train_loader": None},
        "optimizer",
        "SGD",
        "leave it out",
    ),
    case(
        "loss beside a task",
        lambda: {"model": task(), "optimizer": None, "train_loader": None},
        "loss",
        "CrossEntropyLoss",
        "leave it out",
    ),
    case("Task.model a module", lambda: only(model=net()), "Task.model", "Sequential", "lambda"),
    case("Task.model returns a number", lambda: only(model=lambda: 3), "Task.model", "int", "nn.Module"),
    case("Task.optimizer a number", lambda: only(optimizer=0.1), "Task.optimizer", "0.1", "function"),
    case(
        "Task.optimizer returns a number",
        lambda: only(optimizer=lambda parameters, lr: lr),
        "optimizer",
        "10.0",
        "torch.optim",
    ),
    case("Task.loss a number", lambda: only(loss=1), "loss", "1", "CrossEntropyLoss"),
    case("Task without loader", lambda: only(train_loader=None), "train_loader", "None", "DataLoader"),
    case(
        "Task of a lazy module",
        lambda: only(model=lambda: nn.Sequential(nn.LazyLinear(CLASSES))),
        "model",
        "0.weight",
        "one batch",
    ),
    case("Task on no device", lambda: {**only(), "device": "abacus"}, "device", "'abacus'", "cpu"),
]


@pytest.fixture
def updates() -> Iterator[list[object]]:
    """Every step that any optimizer takes."""
    taken: list[object] = []
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: taken.append(optimizer))
    yield taken
    hook.remove()


def weights(model: object) -> list[bytes]:
    """The bits of the parameters that have any."""
    if not isinstance(model, nn.Module):
        return []
    return [p.detach().numpy().tobytes() for p in model.parameters() if not is_lazy(p)]


def entries(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*")) if place.exists() else []


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:train_loader is a generator:UserWarning")
def test_bad_input_gets_one_line_before_any_training(case: Case, home: Path, updates: list[object]) -> None:
    torch.manual_seed(0)
    model = net()
    arguments: dict[str, Any] = {
        "model": model,
        "optimizer": sgd(model),
        "loss": nn.CrossEntropyLoss(),
        "train_loader": loader(),
        "steps": 20,
    }

    before: list[bytes] = []

    def hand_over() -> None:
        arguments.update(case.given())
        before.extend(weights(arguments["model"]))
        lrsearch.range_test(**arguments)

    with pytest.raises(InputError) as caught:
        hand_over()

    message = str(caught.value)
    assert message.startswith(f"{case.argument}=")
    assert "\n" not in message
    assert case.shown in message
    assert case.mend in caught.value.mend
    assert message.endswith(caught.value.mend)
    assert updates == []
    assert weights(arguments["model"])[: len(before)] == before
    assert entries(home) == []


TASKS = """
import lrsearch

nothing = None

def number():
    return 3

def breaks():
    raise RuntimeError("no data today\\nsecond line")

def needs(width):
    return width

def typed(width: int = 3, name: str = "a"):
    return width
"""

RANGE_TEST = [
    ("no such built-in task", ["digit"], ["TASK", "'digit'", "digits, fashion-mnist, mnist"]),
    ("a file without a function", ["tasks.py"], ["TASK", "'tasks.py'", "FILE.py:FUNCTION"]),
    ("no file", ["missing.py:task"], ["TASK", "missing.py", "no file", "check the path"]),
    ("no module", ["missing.module:task"], ["TASK", "missing", "check the path"]),
    ("a file that is no Python", ["broken.py:task"], ["TASK", "'broken.py:task'", "SyntaxError", "check"]),
    ("a file that raises", ["raises.py:task"], ["TASK", "ZeroDivisionError", "check"]),
    ("no such function", ["tasks.py:task"], ["TASK", "'task'", "name a function"]),
    ("not callable", ["tasks.py:nothing"], ["TASK", "'nothing'", "name a function"]),
    ("raises", ["tasks.py:breaks"], ["TASK", "RuntimeError: no data today", "call the function"]),
    ("returns a number", ["tasks.py:number"], ["TASK", "int", "return an lrsearch.Task"]),
    ("a missing argument", ["tasks.py:needs"], ["TASK", "'width'", "--set width=VALUE"]),
    ("--set without =", ["digits", "--set", "batch_size"], ["--set", "'batch_size'", "NAME=VALUE"]),
    ("--set unknown", ["digits", "--set", "depth=3"], ["--set", "'depth=3'", "hidden"]),
    ("--set of a wrong type", ["digits", "--set", "batch_size=many"], ["--set", "many", "integer", "type"]),
    ("--set of no choice", ["digits", "--set", "optimizer=lion"], ["--set", "lion", "'adamw'", "type"]),
    ("--set of a number that kills", ["digits", "--set", "batch_size=0"], ["TASK", "'digits'", "ValueError"]),
    ("--tag without =", ["digits", "--tag", "team"], ["--tag", "'team'", "NAME=VALUE"]),
    ("an unknown option", ["digits", "--step", "9"], ["--step", "--steps"]),
    ("an option of a wrong type", ["digits", "--steps", "many"], ["--steps", "'many'", "--help"]),
    ("no TASK", [], ["TASK"]),
    ("a negative time-out", ["digits", "--sync-timeout", "-1"], ["--sync-timeout", "-1", "--help"]),
    ("a wrong number", ["digits", "--min-lr", "0"], ["min_lr=0.0", "above 0"]),
    ("a wrong word", ["digits", "--stop", "5x"], ["stop='5x'", "'auto'"]),
    ("no such device", ["digits", "--device", "abacus"], ["device='abacus'", "cpu"]),
    ("a place that cannot be", ["digits", "--out", "tasks.py/x"], ["out='tasks.py/x'", "--out"]),
]
OTHERS = [
    ("no such command", ["range-tset"], ["range-tset", "range-test"]),
    ("no such record", ["sync", "lost"], ["name='lost'", "there is none"]),
    ("a name that is no name", ["sync", "?"], ["name='?'", "use letters"]),
]
COMMANDS = [(name, ["range-test", *words], said) for name, words, said in RANGE_TEST] + OTHERS


def refused_elsewhere() -> None:
    raise InputError("lr", -1.0, "is no learning rate", "give a number above 0")


def test_a_worker_process_hands_the_error_on_as_it_is() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        error = pool.submit(refused_elsewhere).exception()
    assert isinstance(error, InputError)
    assert (str(error), error.value) == ("lr=-1.0: is no learning rate; give a number above 0", -1.0)


@pytest.mark.parametrize(("words", "said"), [pytest.param(w, s, id=name) for name, w, s in COMMANDS])
def test_on_the_command_line_too(
    words: list[str], said: list[str], cli: Command, home: Path, updates: list[object]
) -> None:
    Path("tasks.py").write_text(TASKS)
    Path("broken.py").write_text("def task(:")
    Path("raises.py").write_text("1 / 0")

    answer = cli(*words)

    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("lrsearch: ")
    assert answer.err.count("\n") == 1
    assert [part for part in said if part not in answer.err] == []
    assert updates == []
    assert entries(home) == []
