"""A tracked range test: what stands in its folder, and what a real MLflow store shows."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import lrsearch
from lrsearch import RangeTest, Task
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.progress import load_state
from lrsearch.tracking.reading import read_run
from tests.conftest import CHECKOUT, Command
from tests.tracking.store import Store

STEPS = 60
LOSS: Callable[[Tensor, Tensor], Tensor] = nn.CrossEntropyLoss()


def make_net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def toy(loss: Callable[[Tensor, Tensor], Tensor] = LOSS) -> Task:
    inputs = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(inputs, inputs[:, :3].argmax(1)), batch_size=16, shuffle=True)
    return Task(
        model=make_net,
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=1e-4),
        loss=loss,
        train_loader=loader,
        val_loader=loader,
        name="toy",
        arguments={"hidden": 8},
    )


def ending(error: BaseException, after: int = 25) -> Callable[[Tensor, Tensor], Tensor]:
    calls = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > after:
            raise error
        return LOSS(outputs, targets)

    return loss


class LoaderError(Exception):
    """What a user's code may raise."""


def wait_for_mirror(folder: StudyFolder) -> None:
    """Until the mirror has sent everything: a sweep that raised has left nobody to ask."""
    deadline = time.monotonic() + 120
    while (state := load_state(folder)) is None or state.state != "synced":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass(frozen=True)
class Recorded:
    """A store, and the folders of the range tests whose records it holds."""

    store: Store
    place: Path
    single: RangeTest
    repeated: RangeTest

    def key(self, name: str) -> str:
        return read_run(next((self.place / name / "journal").glob("*.jsonl"))).start.key


@pytest.fixture(scope="module")
def recorded(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """On one store: a range test that ends well, one of three seeds, and one that fails."""
    place = tmp_path_factory.mktemp("recorded")
    store = Store(Path(shutil.copy(migrated, place / "mlflow.db")))

    def record(name: str, task: Task, **arguments: Any) -> RangeTest:
        return lrsearch.range_test(
            task,
            **{"steps": STEPS, "max_lr": 100.0, "tracking_uri": store.uri, "out": place / name, **arguments},
        )

    single = record("single", toy(), seed=1, clip=5.0, tags={"team": "vision"})
    repeated = record("repeated", toy(), repeats=3, experiment="seeds")
    with pytest.raises(LoaderError):
        record("failed", toy(ending(LoaderError("no disk"))))
    for name in ("single", "repeated", "failed"):
        wait_for_mirror(StudyFolder(place / name))
    return Recorded(store, place, single, repeated)


# --- a range test that ends well --------------------------------------------------------------------------


def test_every_step_is_a_point_of_each_metric(recorded: Recorded) -> None:
    (curve,) = recorded.single.curves
    key = recorded.key("single")
    shown = {name: recorded.store.points(key, name) for name in ("train/loss", "lr", "train/loss_smoothed")}
    steps = list(range(1, curve.steps + 1))
    assert {name: [p[0] for p in points] for name, points in shown.items()} == dict.fromkeys(shown, steps)
    assert [p[1] for p in shown["train/loss"]] == curve.losses.tolist()
    assert [p[1] for p in shown["lr"]] == pytest.approx(curve.recorded_lrs.tolist(), rel=1e-9)
    assert [p[1] for p in shown["train/loss_smoothed"]] == pytest.approx(curve.smoothed.tolist())


def test_the_run_says_what_it_is(recorded: Recorded) -> None:
    tags = recorded.store.tags(recorded.key("single"))
    expected = {
        "lrsearch.kind": "range_test",
        "lrsearch.study": "single",
        "lrsearch.stage": "range-test",
        "lrsearch.verdict": recorded.single.suggestion.verdict,
        "team": "vision",
    }
    assert tags.items() >= expected.items()
    assert {"mlflow.user", "mlflow.source.name", "lrsearch.key"} <= tags.keys()
    assert recorded.store.status(recorded.key("single")) == "FINISHED"
    assert recorded.store.experiment(recorded.key("single")) == "lrsearch/toy"


def test_the_params_say_how_it_was_made(recorded: Recorded) -> None:
    expected = {
        "task": "toy",
        "stage": "range-test",
        "seed": "1",
        "schedule": "sweep",
        "schedule.min_lr": "1e-07",
        "schedule.max_lr": "100.0",
        "optimizer": "SGD",
        "momentum": "0.9",
        "weight_decay": "0.0001",
        "batch_size": "16",
        "steps": str(STEPS),
        "clip": "5.0",
        "hidden": "8",
    }
    assert recorded.store.params(recorded.key("single")).items() >= expected.items()


def test_the_summaries_are_the_suggestion(recorded: Recorded) -> None:
    found = recorded.single.suggestion
    assert found.bracket is not None
    key = recorded.key("single")
    summaries = ("suggested_lr", "bracket_low", "bracket_high")
    shown = {name: [p[1] for p in recorded.store.points(key, name)] for name in summaries}
    assert shown == {
        "suggested_lr": [found.lr],
        "bracket_low": [found.bracket.low],
        "bracket_high": [found.bracket.high],
    }


def test_the_data_are_inputs(recorded: Recorded) -> None:
    query = "SELECT name, digest FROM datasets"
    assert ("TensorDataset", recorded_digest(recorded)) in recorded.store.rows(query)


def recorded_digest(recorded: Recorded) -> str:
    start = read_run(next((recorded.place / "single" / "journal").iterdir())).start
    assert [data.context for data in start.inputs] == ["train", "val"]
    return start.inputs[0].digest


def test_the_curve_is_in_three_files(recorded: Recorded) -> None:
    artifacts = recorded.store.artifacts(recorded.key("single"))
    assert {path.name for path in artifacts.iterdir()} == {"curve.csv", "curve.json", "curve.png"}
    rows = list(csv.DictReader((artifacts / "curve.csv").read_text().splitlines()))
    (curve,) = recorded.single.curves
    assert [float(row["loss"]) for row in rows] == curve.losses.tolist()
    assert [float(row["lr"]) for row in rows] == curve.recorded_lrs.tolist()
    values = json.loads((artifacts / "curve.json").read_text())
    assert values["suggestion"]["lr"] == recorded.single.lr
    assert (artifacts / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_run_id_is_the_run_in_mlflow(recorded: Recorded) -> None:
    assert recorded.single.run_id == recorded.store.run_id(recorded.key("single"))
    assert recorded.single.tracking == "synced"


def test_load_gives_the_same_result(recorded: Recorded) -> None:
    loaded = lrsearch.load(str(recorded.place / "single"))
    assert loaded == recorded.single
    assert loaded.to_dict() == recorded.single.to_dict()


# --- several seeds, and other ends ------------------------------------------------------------------------


def test_repeats_are_three_flat_children_of_one_run(recorded: Recorded) -> None:
    starts = [read_run(path).start for path in (recorded.place / "repeated" / "journal").iterdir()]
    (parent,) = [start for start in starts if start.parent is None]
    children = [start for start in starts if start.parent is not None]
    parent_id = recorded.store.run_id(parent.key)
    assert [recorded.store.tags(c.key)["mlflow.parentRunId"] for c in children] == [parent_id] * 3
    assert sorted(recorded.store.params(c.key)["seed"] for c in children) == ["0", "1", "2"]
    points = [len(recorded.store.points(child.key, "train/loss")) for child in children]
    assert sum(points) == recorded.repeated.steps
    assert {recorded.store.status(start.key) for start in starts} == {"FINISHED"}
    assert {recorded.store.experiment(start.key) for start in starts} == {"seeds"}
    assert [p[1] for p in recorded.store.points(parent.key, "suggested_lr")] == [recorded.repeated.lr]


def test_a_sweep_that_raised_ends_failed_with_its_traceback(recorded: Recorded) -> None:
    key = recorded.key("failed")
    assert recorded.store.status(key) == "FAILED"
    error = recorded.store.tags(key)["lrsearch.error"]
    assert "LoaderError: no disk" in error
    assert "after 25 steps" in error
    assert "Traceback" in error
    assert len(recorded.store.points(key, "train/loss")) == 25


def test_an_unfinished_range_test_cannot_be_loaded(recorded: Recorded) -> None:
    with pytest.raises(lrsearch.RecordError, match="no finished range test"):
        lrsearch.load(str(recorded.place / "failed"))


# --- the training process ---------------------------------------------------------------------------------

SCRIPT = """
import json, os, sys
import lrsearch
sys.path.insert(0, {checkout!r})
from tests.test_tracked import toy
{before}
environment = dict(os.environ)
curve = lrsearch.range_test(toy(), steps=30, tracking_uri={uri!r}, progress=False)
waited = curve.run_id is not None and curve.mirror.wait(60)
print(json.dumps({{
    "waited": waited,
    "environment": environment == dict(os.environ),
    "loaded": sorted({{"mlflow", "optuna"}} & sys.modules.keys()),
    "same": lrsearch.load(curve.folder.name) == curve,
    "key": curve.key,
    "folder": str(curve.folder.path),
    {after}
}}))
"""


def in_python(uri: str, before: str = "", after: str = "") -> dict[str, Any]:
    code = SCRIPT.format(checkout=str(CHECKOUT), uri=uri, before=before, after=after)
    # tests.test_tracked is imported there as a module: pytest comes with it, and no more
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_the_training_process_loads_no_mlflow_and_keeps_its_environment(store: Store, home: Path) -> None:
    said = in_python(store.uri)
    assert said["waited"]
    assert said["environment"]
    assert said["loaded"] == []
    assert said["same"]
    folder = Path(said["folder"])
    assert folder.parent == home
    assert re.fullmatch(r"range-test-toy-\d{8}t\d{6}z-[0-9a-f]{4}", folder.name)
    assert store.status(said["key"]) == "FINISHED"


def test_an_active_run_of_the_user_becomes_the_parent(store: Store) -> None:
    said = in_python(
        store.uri,
        before=f"""
import mlflow
mlflow.set_tracking_uri({store.uri!r})
mlflow.set_experiment("mine")
run = mlflow.start_run()
""",
        after='"run": run.info.run_id, "active": mlflow.active_run().info.run_id',
    )
    assert store.tags(said["key"])["mlflow.parentRunId"] == said["run"] == said["active"]
    assert store.experiment(said["key"]) == "mine"


class Rows(IterableDataset[tuple[Tensor, Tensor]]):
    """Rows that can only be iterated, though their number is known."""

    def __len__(self) -> int:
        return 64

    def __iter__(self) -> Any:
        return iter([(torch.ones(6), torch.tensor(k % 3)) for k in range(64)])


# --- the command line -------------------------------------------------------------------------------------


def test_the_command_line_answers_in_one_object(cli: Command, store: Store, home: Path) -> None:
    words = ["range-test", "digits", "--json", "--steps", "100", "--set", "batch_size=64"]
    answer = cli(*words, "--tracking-uri", store.uri, "--sync-timeout", "60", "--tag", "a=b=c")
    said = json.loads(answer.out)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.count("\n") == 1
    assert said["tracking"] == "synced"
    assert said["verdict"] in ("ok", "rules_disagree")
    assert said["bracket"]["low"] <= said["lr"] <= said["bracket"]["high"]
    assert said["rule"]
    ((key,),) = store.rows(
        "SELECT value FROM tags WHERE key = 'lrsearch.key' AND run_uuid = ?", said["run_id"]
    )
    assert len(store.points(key, "train/loss")) == said["steps"]
    assert store.params(key).items() >= {"batch_size": "64", "hidden": "64", "task": "digits"}.items()
    assert store.tags(key)["a"] == "b=c"
    assert Path(said["folder"]).parent == home
    assert said["name"].startswith("range-test-digits-")


def test_without_a_server_the_sweep_runs_and_sync_fills_it_later(
    cli: Command, store: Store, tmp_path: Path
) -> None:
    words = ["range-test", "digits", "--json", "--steps", "100", "--sync-timeout", "1"]
    answer = cli(*words, "--tracking-uri", "http://127.0.0.1:9")
    said = json.loads(answer.out)
    assert answer.code == 0
    assert (said["tracking"], said["run_id"]) == ("pending", None)
    assert answer.err.count("\n") == 1
    assert answer.err.rstrip().endswith(f"lrsearch sync {said['name']}")

    again = cli("sync", said["name"], "--tracking-uri", store.uri, "--json")
    assert (again.code, again.err) == (0, "")
    assert json.loads(again.out) == {"name": said["name"], "tracking": "synced"}
    key = read_run(next((Path(said["folder"]) / "journal").iterdir())).start.key
    assert len(store.points(key, "train/loss")) == said["steps"]
    assert store.status(key) == "FINISHED"
    assert {path.name for path in store.artifacts(key).iterdir()} == {"curve.csv", "curve.json", "curve.png"}


SLOW = """
import time, torch, lrsearch
from torch import nn

class Slow:
    def __iter__(self):
        for _ in range(500):
            time.sleep(0.02)
            yield torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)

def task():
    return lrsearch.Task(
        lambda: nn.Linear(2, 2), lambda p, lr: torch.optim.SGD(p, lr=lr), Slow(), nn.CrossEntropyLoss()
    )
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_sweep_and_its_run(
    number: signal.Signals, code: int, store: Store, home: Path, tmp_path: Path
) -> None:
    Path("slow.py").write_text(SLOW)
    program = [sys.executable, "-c", "from lrsearch.cli import main; main()"]
    words = ["range-test", "slow.py:task", "--tracking-uri", store.uri]
    process = subprocess.Popen([*program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(b"points" in path.read_bytes() for path in home.glob("*/journal/*.jsonl")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    (folder,) = home.iterdir()
    run = read_run(next((folder / "journal").iterdir()))
    assert run.end is not None
    assert run.end.status == "KILLED"
    assert len(run.metric("lr")[0]) >= 1
    wait_for_mirror(StudyFolder(folder))
    assert store.status(run.start.key) == "KILLED"


# --- odd data ---------------------------------------------------------------------------------------------


def test_data_without_an_index_are_recorded_without_a_fingerprint(store: Store) -> None:
    """A stream whose length is known still cannot be looked into."""
    parts = toy()
    stream = Task(parts.model, parts.optimizer, DataLoader(Rows(), batch_size=8), LOSS, name="stream")
    result = lrsearch.range_test(stream, steps=20, tracking_uri=store.uri)
    assert result.folder is not None
    start = read_run(result.folder.journals()[0]).start
    assert [data.digest for data in start.inputs] == ["unknown"]


@pytest.fixture(autouse=True)
def no_mirror_stays(tmp_path: Path) -> Any:
    """Ends the mirrors whose server never comes back."""
    yield
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "lrsearch.tracking.mlflow.mirror" in words and words[-1].startswith(f"{tmp_path}{os.sep}"):
            process.kill()
