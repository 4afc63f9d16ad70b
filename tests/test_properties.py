"""Whatever is thrown at the plan, the journals, the range test and the command line: typed errors alone.

`INPUTS` inputs are generated, the same ones each time.
"""

from __future__ import annotations

import io
import json
import math
import signal
import sys
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import lrsearch
from lrsearch import InputError, RangeTest, RecordError
from lrsearch.cli import main
from lrsearch.core.presets import load_plan
from lrsearch.core.study_plan import StudyPlan
from lrsearch.errors import LrsearchError
from lrsearch.study.gather import gather
from lrsearch.study.prepare import with_whole_schedules
from lrsearch.study.status import status
from lrsearch.tracking.folder import StudyFolder, create_folder
from lrsearch.tracking.journal import BLOCK
from lrsearch.tracking.reading import RunRecord, last_writer, read_run, read_start
from tests.study.tasks import digits, study
from tests.tracking.runs import finished

COUNTS = {"plans": 500, "toml": 400, "bytes": 200, "journals": 400, "files": 100, "sweeps": 300, "words": 300}
INPUTS = sum(COUNTS.values())


def thrown(what: str) -> settings:
    """How many, always the same, and as long as they take."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=COUNTS[what],
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=checks,
    )


def test_at_least_two_thousand_inputs_are_thrown() -> None:
    assert INPUTS >= 2000


def assert_one_line(error: Exception) -> None:
    assert isinstance(error, LrsearchError)
    assert str(error).isprintable(), repr(str(error))


# --- the plan ---------------------------------------------------------------------------------------------

FIELDS = sorted(
    {*StudyPlan.model_fields}
    | {
        name
        for field in StudyPlan.model_fields.values()
        for name in getattr(field.annotation, "model_fields", ())
    }
    | {"name", "inner", "fraction", "gamma", "milestones", "power", "cycles", "decay", "cooldown", "final"}
)
WORDS = ["quick", "default", "thorough", "constant", "linear", "cosine", "wsd", "step", "one_cycle", "warmup"]
WORDS += ["sweep", "plateau", "minimize", "maximize", "best", "final", "val/loss", "true", ""]
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 3, 10, 0.5, 1e-3, 24.0, 1e308, 5e-324, 10**40, 2**63, -0.0, True, False]),
    st.integers(),
    st.floats(),
)
LEAVES = st.one_of(NUMBERS, st.sampled_from(WORDS), st.text(max_size=8), st.none(), st.binary(max_size=4))
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=2)
        | st.tuples(inner)
    ),
    max_leaves=8,
)
TABLES = st.dictionaries(
    st.one_of(st.sampled_from([*StudyPlan.model_fields]), st.text(max_size=5), st.integers()),
    VALUES,
    max_size=4,
)


def assert_plan_or_typed(make: Callable[[], StudyPlan]) -> None:
    try:
        plan = make()
        plan = with_whole_schedules(plan, 40, 10)
    except InputError as error:
        assert_one_line(error)
        return
    assert load_plan(plan.to_dict()) == plan
    assert sum(cost.least for cost in plan.costs()) <= plan.budget
    json.dumps(plan.to_dict(), allow_nan=False)


@thrown("plans")
@given(source=st.one_of(TABLES, TABLES, TABLES, VALUES))
def test_a_mapping_is_a_plan_or_a_typed_error(source: Any) -> None:
    assert_plan_or_typed(lambda: load_plan(source))


TOKENS = [
    "1",
    "0",
    "-3",
    "1e400",
    "nan",
    "inf",
    '"quick"',
    '"linear"',
    "[]",
    "{}",
    "true",
    "1979-05-27",
    "''",
]
TOKENS += ["[1, 'a']", '{ name = "step", gamma = 2 }', "0x", "'", "[[", '"""', "9" * 5000, "[" * 2000, "\x00"]
LINES = st.one_of(
    st.builds("{} = {}".format, st.sampled_from(FIELDS), st.sampled_from(TOKENS)),
    st.builds("[{}]".format, st.sampled_from(FIELDS)),
    st.builds("[[{}]]".format, st.sampled_from(FIELDS)),
    st.text(max_size=20),
)


@thrown("toml")
@given(text=st.one_of(st.lists(LINES, max_size=6).map("\n".join), st.lists(LINES, max_size=2).map("\n".join)))
def test_a_file_is_a_plan_or_a_typed_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert_plan_or_typed(lambda: load_plan(file))


# --- journals ---------------------------------------------------------------------------------------------

CHUNKS = st.one_of(
    st.binary(max_size=60), st.just(b"\n"), st.just(b'{"type":"points"}'), st.text().map(str.encode)
)


def assert_read_or_typed(path: Path) -> RunRecord | None:
    for read in (read_start, last_writer):
        try:
            read(path)
        except RecordError as error:
            assert_one_line(error)
    try:
        run = read_run(path)
    except RecordError as error:
        assert_one_line(error)
        return None
    for group in run.groups:
        assert {len(group.steps)} == {len(group.ms), *map(len, group.metrics.values())}
        assert all(math.isfinite(value) for values in group.metrics.values() for value in values)
    return run


@thrown("bytes")
@given(chunks=st.lists(CHUNKS, max_size=8), sound=st.booleans())
def test_any_bytes_are_a_journal_or_a_typed_error(chunks: list[bytes], sound: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = [b"%08x %s" % (zlib.crc32(chunk), chunk) if sound else chunk for chunk in chunks]
    path.write_bytes(b"\n".join(lines))
    assert_read_or_typed(path)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The journal of a run that has ended well."""
    return finished(
        create_folder("s", out=tmp_path_factory.mktemp("real") / "s"), 6 * BLOCK
    ).path.read_bytes()


Harm = tuple[str, float, float, int]
HARMS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "remove", "insert", "repeat", "swap", "forge"]),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def harmed(data: bytes, harm: Harm) -> bytes:
    """The bytes with one harm done at a place of them, each place a share of the length."""
    how, first, second, number = harm
    low, high = sorted((int(first * len(data)), int(second * len(data))))
    lines = data.splitlines(keepends=True)
    if how == "flip" and data:
        return data[:low] + bytes([data[low] ^ (1 << number % 8)]) + data[low + 1 :]
    if how == "cut":
        return data[:high]
    if how == "remove":
        return data[:low] + data[min(high, low + number) :]
    if how == "insert":
        return data[:low] + bytes([number]) * (1 + number % 7) + data[low:]
    if how == "repeat":
        return data[:high] + data[low:]
    if not lines:
        return data
    line = int(first * len(lines))
    if how == "swap":
        return b"".join([*lines[line:], *lines[:line]])
    text = lines[line][9:].rstrip(b"\n").replace(b"1", b"[%d]" % number, 1 + number % 3)
    return b"".join([*lines[:line], b"%08x %s\n" % (zlib.crc32(text), text), *lines[line + 1 :]])


def sound_points(data: bytes) -> int:
    """How many points stand in lines whose checksum fits, behind the first beginning of a run."""
    count, begun = 0, False
    for line in data.split(b"\n")[:-1]:
        if line[:9] != b"%08x " % zlib.crc32(line[9:]):
            continue
        record = json.loads(line[9:])
        begun = begun or record["type"] == "start"
        if begun and record["type"] == "points":
            count += len(record["step"])
    return count


@thrown("journals")
@given(harms=HARMS)
def test_a_harmed_journal_is_read_as_far_as_it_is_sound(
    harms: list[Harm], real: bytes, tmp_path: Path
) -> None:
    data = real
    for harm in harms:
        data = harmed(data, harm)
    path = tmp_path / "x.jsonl"
    path.write_bytes(data)
    run = assert_read_or_typed(path)
    if run is not None and "forge" not in {how for how, *_ in harms}:
        assert len(run.metric("lr")[0]) == sound_points(data)
        lines = [line for line in data.split(b"\n")[:-1] if line.strip()]
        unsound = sum(line[:9] != b"%08x " % zlib.crc32(line[9:]) for line in lines)
        assert sum("is damaged" in line for line in run.damage) == unsound


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A finished study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSEARCH_HOME", str(tmp_path_factory.mktemp("done")))
        return study(digits(), "done").folder


FILES = ["plan.json", "result.json", "tracking.json"]


def spoiled(value: Any, path: tuple[float, ...], other: Any) -> Any:
    """A JSON value with something else in one place of it."""
    if not path or not isinstance(value, dict | list) or not value:
        return other
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[int(path[0] * len(keys))]
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = spoiled(value[key], path[1:], other)
    return copy


JSON = st.recursive(
    st.one_of(st.none(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=3,
)
PLACES = st.lists(st.floats(0, 1, exclude_max=True), max_size=5).map(tuple)


@thrown("files")
@given(name=st.sampled_from(FILES), place=PLACES, other=JSON)
def test_a_spoiled_file_of_a_study_is_read_or_a_typed_error(
    name: str, place: tuple[float, ...], other: Any, done: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRSEARCH_HOME", str(done.path.parent))
    file = done.path / name
    whole = file.read_text()
    file.write_text(json.dumps(spoiled(json.loads(whole), place, other)))
    try:
        for read in (lambda: lrsearch.load("done"), lambda: gather(done), lambda: status(done)):
            try:
                read()
            except LrsearchError as error:
                assert_one_line(error)
    finally:
        file.write_text(whole)


# --- the range test ---------------------------------------------------------------------------------------

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
DTYPES += [torch.complex64, torch.int16]
FILLS = [None, None, None, 0.0, 1.0, 1e30, 1e38, math.nan, math.inf, -1.0]


class Unsized(IterableDataset[Any]):
    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


@st.composite
def tensors(draw: st.DrawFn, shapes: list[tuple[int, ...]]) -> Tensor:
    shape, dtype, fill = (
        draw(st.sampled_from(shapes)),
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(FILLS)),
    )
    drawn = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    values = torch.randn(shape, generator=drawn) * 2 if fill is None else torch.full(shape, fill)
    if not dtype.is_floating_point and not dtype.is_complex:
        values = values.nan_to_num(0, 9, -9).clamp(-9, 9)
    return values.to(dtype)


PROPER = st.integers(0, 9).map(lambda k: torch.randn(4, 3, generator=torch.Generator().manual_seed(k)))
ODD_INPUTS = tensors([(4, 3), (4, 3), (4, 3), (1, 3), (4, 2), (3,), (), (0, 3), (4, 3, 1), (2, 4, 3)])
INPUTS_ = st.one_of(PROPER, PROPER, ODD_INPUTS)
TARGETS = st.one_of(
    *[st.integers(0, 1).map(lambda k: torch.arange(4) % (k + 1))] * 2,
    st.integers(2, 9).map(lambda k: torch.arange(4) % (k + 1)),
    st.just(torch.randn(4, 2, generator=torch.Generator().manual_seed(0))),
    tensors([(4,), (4, 2), (1,), (), (0,), (4, 1)]),
)
BATCHES = st.one_of(
    st.tuples(INPUTS_, TARGETS),
    st.tuples(INPUTS_, TARGETS).map(list),
    st.builds(lambda x, y: {"input": x, "labels": y}, INPUTS_, TARGETS),
    st.tuples(INPUTS_, INPUTS_, TARGETS),
    INPUTS_,
    st.sampled_from([None, 3, "batch", (), {}, (None, None), [[1.0, 2.0, 3.0], [0, 1]]]),
)
LOSSES: list[Any] = [
    *[nn.CrossEntropyLoss()] * 8,
    nn.MSELoss(),
    nn.L1Loss(reduction="none"),
    *[lambda outputs, targets: outputs.sum()] * 4,
    lambda outputs, targets: -outputs.pow(2).sum(),
    lambda outputs, targets: outputs.sum() * math.nan,
    lambda outputs, targets: outputs.mean().reshape(1, 1),
    lambda outputs, targets: outputs.mean().double(),
    lambda outputs, targets: outputs.mean() * (1 + 1j),
    lambda outputs, targets: torch.tensor(1.0),
    lambda outputs, targets: outputs.detach().sum(),
    lambda outputs, targets: 3,
    lambda outputs, targets: None,
    lambda outputs, targets: outputs,
    lambda outputs, targets: 1 / 0,
    None,
    "loss",
]


@st.composite
def loaders(draw: st.DrawFn) -> Any:
    """Loaders of equal batches, or of batches that differ."""
    if draw(st.integers(0, 9)) < 6:
        return [draw(st.tuples(PROPER, st.just(torch.tensor([0, 1, 0, 1])))) for _ in range(5)]
    batch = draw(BATCHES)
    count = draw(st.sampled_from([5, 5, 5, 2, 1, 0]))
    batches = [batch] * count if draw(st.integers(0, 3)) else [draw(BATCHES) for _ in range(count)]
    kind = draw(st.sampled_from(["list", "list", "list", "unsized", "generator", "loader", "odd"]))
    if kind == "unsized":
        return DataLoader(Unsized(batches), batch_size=None)
    if kind == "generator":
        return (batch for batch in batches)
    if kind == "loader":
        rows = TensorDataset(
            torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
        )
        return DataLoader(rows, batch_size=4)
    return draw(st.sampled_from([None, 3, "ab", b"abc", {}, nn.Linear(3, 2)])) if kind == "odd" else batches


SETTINGS: dict[str, list[Any]] = {
    "min_lr": [1e-7, 1e-3, 1e-300],
    "max_lr": [1.0, 10.0, 1e30],
    "spacing": ["log", "linear"],
    "smoothing": [0.0, 0.5, 0.98],
    "repeats": [1, 2],
    "seed": [0, 7, 2**32 - 3],
    "stop": ["auto", "4x", "none"],
    "accumulate": [1, 2, 3],
    "clip": [None, 1.0],
    "precision": ["32", "32", "bf16", "16"],
    "device": [None, "cpu"],
    "keep": ["device", "cpu", "disk"],
}
ODD_SETTINGS = st.one_of(
    NUMBERS, st.sampled_from(["", "cubic", "cuda:99", "meta", [], {}, ()]), st.text(max_size=4)
)


@st.composite
def asked_for(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a range test, at times with an odd one among them."""
    good = {name: st.sampled_from(values) for name, values in SETTINGS.items()}
    asked = draw(st.fixed_dictionaries({"steps": st.sampled_from([10, 11, 20])}, optional=good))
    if not draw(st.integers(0, 4)):
        asked[draw(st.sampled_from(["steps", *SETTINGS]))] = draw(ODD_SETTINGS)
    if not isinstance(asked["steps"], int) or asked["steps"] > 20:  # 0.5, and what would take for ever
        asked["steps"] = draw(st.sampled_from([9, 10.5, "10", True]))
    if isinstance(asked.get("repeats"), int):
        asked["repeats"] = min(asked["repeats"], 2)
    if isinstance(asked.get("accumulate"), int):
        asked["accumulate"] = min(asked["accumulate"], 3)
    return asked


OPTIMIZERS: list[Callable[[Iterator[nn.Parameter]], Any]] = [
    *[lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9)] * 3,
    *[lambda parameters: torch.optim.Adam(parameters, lr=0.1)] * 2,
    lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=2),
    lambda parameters: torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1),
    lambda parameters: None,
]


@thrown("sweeps")
@given(
    loader=loaders(),
    loss=st.sampled_from(LOSSES),
    optimizer=st.sampled_from(OPTIMIZERS),
    dtype=st.sampled_from(
        [torch.float32] * 4 + [torch.float64, torch.bfloat16, torch.float16, torch.complex64]
    ),
    asked=asked_for(),
)
def test_a_range_test_ends_or_is_a_typed_error(
    loader: Any, loss: Any, optimizer: Callable[..., Any], dtype: torch.dtype, asked: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = nn.Linear(3, 2).to(dtype)
            found = lrsearch.range_test(
                model, optimizer(model.parameters()), loss, loader, **asked, tracking=False, progress=False
            )
    except LrsearchError as error:
        assert_one_line(error)
    except Exception as error:
        assert_from_outside(error)
    else:
        assert isinstance(found, RangeTest)
        json.dumps(found.to_dict(), allow_nan=False)


def assert_from_outside(error: Exception) -> None:
    """What the model, the loss or the loader raise after the first update passes through, and says where."""
    (note,) = getattr(error, "__notes__", ["none"])
    assert note.startswith("in the range test, after "), repr(error)
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    assert "/lrsearch/" not in innermost, "".join(traceback.format_exception(error))


# --- the command line -------------------------------------------------------------------------------------

TINY = """
import torch
from torch import nn
import lrsearch

batches = [(torch.ones(2, 3) * k, torch.tensor([0, 1])) for k in range(1, 5)]

def task(width: int = 3, name: str = "tiny"):
    return lrsearch.Task(
        model=lambda: nn.Linear(3, 2),
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        loss=nn.CrossEntropyLoss(), train_loader=batches, val_loader=batches,
    )

def train(trial):
    raise ValueError("no luck")

nothing = None
"""
LRS, COUNTS_ = ["1e-5", "0.1", "10"], ["1", "2", "20", "40"]
OPTIONS: dict[str, dict[str, list[str]]] = {
    "range-test": {
        **{
            "--min-lr": LRS,
            "--max-lr": LRS,
            "--steps": COUNTS_,
            "--spacing": ["log", "linear"],
            "--clip": LRS,
        },
        **{"--smoothing": ["0", "0.9"], "--repeats": COUNTS_, "--seed": COUNTS_, "--stop": ["auto", "none"]},
        **{"--accumulate": ["1", "2"], "--precision": ["32", "bf16"], "--device": ["cpu"], "--out": ["o"]},
        **{"--set": ["width=4"], "--tag": ["k=v"], "--sync-timeout": ["0"], "--json": [], "--quiet": []},
    },
    "search": {
        **{"--name": ["new"], "--epochs": ["1", "20"], "--steps": COUNTS_, "--objective": ["train/loss"]},
        **{"--plan": ["quick", "plan.toml"], "--seed": COUNTS_, "--device": ["cpu"], "--set": ["width=4"]},
        **{"--tag": ["k=v"], "--json": [], "--quiet": []},
    },
    "resume": {"--device": ["cpu"], "--sync-timeout": ["0"], "--accept-changes": [], "--json": []},
    "report": {"--out": ["page.html"], "--json": [], "--quiet": []},
    "status": {"--json": []},
    "reproduce": {"--device": ["cpu"], "--json": [], "--quiet": []},
    "compare": {"--out": ["page.html"], "--json": []},
    "sync": {"--timeout": ["0"], "--json": []},
    "tasks": {"--json": []},
    "ui": {"--port": ["5000"]},
    "rm": {"--yes": []},
}
FORCED = {  # nothing is trained for long, nothing is served, nothing is sent
    "range-test": ["--no-tracking", "--steps", "10", "--repeats", "1"],
    "search": ["--dry-run"],
    "ui": ["--tracking-uri", "http://127.0.0.1:9"],
}
ODD = [
    "",
    "0",
    "-1",
    "1",
    "3",
    "nan",
    "inf",
    "1e400",
    str(2**63),
    "9" * 40,
    "x",
    "digits",
    "tiny.py:task",
    "/",
]
ODD += [
    "tiny.py:train",
    "tiny.py:nothing",
    "tiny.py:",
    ":",
    "a/b",
    "../x",
    "broken",
    "width=4",
    "width=w",
    "=",
    "k=v",
]
ODD += [
    "quick",
    "plan.toml",
    "val/loss",
    "log",
    "cpu",
    "cuda:99",
    "meta",
    "--",
    "-",
    "--json",
    "--quiet",
    "-h",
    "--x",
]
VALUES_ = st.one_of(st.sampled_from(ODD), st.text(max_size=6), st.floats().map(str))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with a task or a name and some of its options, at times with an odd word for one of them."""
    command = draw(st.sampled_from([*OPTIONS, "range-test", "search", "lost"]))
    words = [command]
    if command in ("range-test", "search"):
        words.append(
            draw(st.sampled_from(["tiny.py:task", "tiny.py:task", "tiny.py:train", "tiny.py:nothing"]))
        )
    elif command != "tasks" and draw(st.integers(0, 5)):
        words += [
            draw(st.sampled_from(["broken", "absent"])) for _ in range(2 if command == "compare" else 1)
        ]
    if command == "search":
        words += ["--name", "new", "--steps", "40"]
    options = OPTIONS.get(command, {})
    for option in draw(st.lists(st.sampled_from([*options]), max_size=3)) if options else []:
        words += [option, draw(st.sampled_from(options[option]))] if options[option] else [option]
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        at = draw(st.integers(1, len(words)))
        words[at : at + draw(st.integers(0, 1))] = [draw(VALUES_)]
    words += FORCED.get(command, [])
    return [word for word in words if word != "--"] if command in FORCED else words


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with a tiny task, a plan, and a study of which nothing can be read."""
    place = tmp_path_factory.mktemp("words")
    (place / "tiny.py").write_text(TINY)
    (place / "plan.toml").write_text('preset = "quick"\nbudget = 10\n')
    broken = StudyFolder(place / "home" / "broken")
    broken.journal.mkdir(parents=True)
    broken.plan.write_text("[]")
    (broken.journal / "broken-0.jsonl").write_bytes(b"\x00\xff" * 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        yield place


def typed(words: list[str]) -> tuple[int, str, str]:
    """What a command line gives: its exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    terminate, filters = signal.getsignal(signal.SIGTERM), list(warnings.filters)
    shown = warnings.showwarning
    try:
        with (
            mock.patch.object(sys, "argv", ["lrsearch", *words]),
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
    finally:
        signal.signal(signal.SIGTERM, terminate)
        warnings.showwarning, warnings.filters[:] = shown, filters  # type: ignore[index]
    assert isinstance(ended.value.code, int)
    return ended.value.code, out.getvalue(), err.getvalue()


@thrown("words")
@given(words=command_lines())
def test_a_command_line_gives_an_answer_or_one_line(
    words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("LRSEARCH_HOME", str(place / "home"))
    code, out, err = typed(words)
    if code == 0:
        return
    assert code in (1, 2), err
    said = [line for line in err.splitlines() if not line.startswith("lrsearch: warning: ")]
    assert len(said) == 1, err
    assert said[0].startswith("lrsearch: ")
    assert "Error: no message" not in said[0]
    assert "Traceback" not in out + err
