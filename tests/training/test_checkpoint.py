"""Trials that are cut short at any step and go on: the same bits as if they had never stopped."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    TensorDataset,
)

from lrsearch.core.divergence import DivergenceRule
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.errors import InputError, RecordError
from lrsearch.schedules import Cosine
from lrsearch.training.batches import Batches
from lrsearch.training.checkpoint import Checkpoints, TrialCheckpoints, check_every, keep_only
from lrsearch.training.loop import fit
from lrsearch.training.portable_state import RandomStates
from lrsearch.training.run_trial import run_trial
from lrsearch.training.signals import DeferredSignals
from lrsearch.training.snapshot import strided_parts
from lrsearch.training.task import Task
from lrsearch.training.trial_log import TrialLog
from lrsearch.training.update import Training
from tests.training.tasks import (
    CPU,
    DATA,
    EPOCH,
    INPUTS,
    SAM,
    TARGETS,
    Listener,
    make_spec,
    sgd,
    small_task,
)

EACH_STEP = 1e-9
"""Seconds between checkpoints: one after every step."""
STEPS = 20
Point = tuple[int, dict[str, float]]


class Cut(BaseException):
    """What ends a trial in the middle: as a kill, it gives nobody the time to do anything."""


class CutShort(Listener):
    """Hears of a trial up to a step, and ends it when it hears of the next."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        if step > self._after:
            raise Cut
        super().record(step, metrics)


@dataclass
class Trained:
    """What a trial has given: its result, its points, and the weights that it left."""

    result: TrialResult
    points: list[Point]
    weights: dict[str, Tensor]

    def same(self, other: Trained) -> bool:
        same_weights = self.weights.keys() == other.weights.keys() and all(
            same_bits(self.weights[name], other.weights[name]) for name in self.weights
        )
        return same_weights and without_seconds(self.result) == without_seconds(other.result)


def same_bits(one: Tensor, other: Tensor) -> bool:
    parts, others = strided_parts(one), strided_parts(other)
    return one.dtype == other.dtype and all(
        part.numpy().tobytes() == same.numpy().tobytes() for part, same in zip(parts, others, strict=True)
    )


def without_seconds(result: TrialResult) -> dict[str, Any]:
    return {**asdict(result), "seconds": 0.0}


class Since(Checkpoints):
    """Made after every step from one on: each costs more than a step of these tasks."""

    def __init__(self, step: int, listener: Listener, place: Path, spec: TrialSpec) -> None:
        super().__init__(place, spec.key)
        self._step, self._points = step, listener.points

    def due(self) -> bool:
        return self._points[-1][0] >= self._step


def train(
    task: Task, spec: TrialSpec, place: Path, listener: Listener, checkpoints: Checkpoints | None = None
) -> Trained:
    weights = place / "weights.pt"
    kept = checkpoints or Checkpoints(place, spec.key)
    result = run_trial(task, spec, CPU, listener, objective="val/loss", weights=weights, checkpoints=kept)
    state = torch.load(weights, weights_only=True) if weights.exists() else {}
    return Trained(result, listener.points, state)


def cut_short(task: Task, spec: TrialSpec, place: Path, after: int, since: int | None = None) -> CutShort:
    """Trained until so many updates are made and kept, and then no more."""
    listener = CutShort(after)
    checkpoints = Since(after - 1 if since is None else since, listener, place, spec)
    with pytest.raises(Cut):
        train(task, spec, place, listener, checkpoints)
    return listener


def in_two_parts(make: Callable[[], Task], spec: TrialSpec, place: Path, cut: int) -> Trained:
    """Cut short after `cut` updates, and gone on with by a task that is made anew."""
    first = cut_short(make(), spec, place, cut)
    torch.manual_seed(99)  # another process has other random states
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)
    second = Listener()
    trained = train(make(), spec, place, second)
    assert not [point for point in second.points if point[0] <= cut]
    trained.points = first.points + second.points
    return trained


def files(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if "ckpt" in path.name)


# --- tasks whose every part is random or has a state ------------------------------------------------------


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Rows that come with noise from torch, NumPy and Python each time they are read."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(3)

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.randn(4) + np.random.rand() + random.random() + self.own.random()  # noqa: NPY002
        return INPUTS[index] + noise, TARGETS[index]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 2))


class Counting(nn.Module):
    """Its attributes, and a buffer that no state_dict has, change with every batch."""

    noise: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.calls = 0
        self.seen: list[float] = []
        self.last: Tensor | None = None
        self.tied = self.linear.weight.data
        self.generator = torch.Generator().manual_seed(5)
        self.legacy = np.random.RandomState(5)
        self.latest: deque[float] = deque(maxlen=2)
        self.register_buffer("noise", torch.zeros(2), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs)
        if self.training:
            self.calls += 1
            self.seen.append(float(outputs.detach().sum()))
            self.noise.add_(torch.randn(2, generator=self.generator) * float(self.legacy.rand()))
        shift = 0.0 if self.last is None else self.last
        if self.training:
            self.last = outputs.detach().mean(0)
        return outputs * (1 + self.calls / 50) + self.noise + shift + sum(self.seen[-2:]) * 0.01


class Buffered(nn.Linear):
    """Its buffers, which change with every batch, are sparse and complex."""

    graph: Tensor
    wave: Tensor

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.register_buffer("graph", torch.eye(4).to_sparse())
        self.register_buffer("wave", torch.full((4,), 1j))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.graph.mul_(1.01)
            self.wave *= 1.01
        return super().forward(inputs @ self.graph.to_dense() * self.wave.imag)


class CountingLoss(nn.CrossEntropyLoss):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.count: Tensor

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.count += 1
        return super().forward(outputs, targets) * (1 + self.count / 100)


class InTurns(Sampler[int]):
    """Another order in each epoch, which it counts itself, drawn from a generator of NumPy's."""

    def __init__(self) -> None:
        self.epoch = 0
        self.generator = np.random.Generator(np.random.Philox(1))

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        for index in self.generator.permutation(60):
            yield (int(index) + self.epoch) % 60

    def __len__(self) -> int:
        return 60


def adam(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
    return torch.optim.Adam(parameters, lr=lr)


def two_groups(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
    first, *others = parameters
    groups: list[dict[str, Any]] = [{"params": [first], "lr": lr / 10}, {"params": others}]
    return torch.optim.AdamW(groups, lr=lr, amsgrad=True)


def lbfgs(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
    return torch.optim.LBFGS(parameters, lr=lr, max_iter=3)


class Coarse(torch.optim.SGD):
    """Keeps float16 and float64 tensors, and a number of its own."""

    def __init__(self, parameters: Iterator[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.taken = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.taken += 1
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["fine"] = state.get("fine", 0) + p.grad.double() / 3
                state["coarse"] = (state["fine"] / self.taken).half()
                p -= group["lr"] * (state["coarse"] + state["fine"] * 1e-3)


def distributed() -> DataLoader[Any]:
    return DataLoader(DATA, batch_size=8, sampler=DistributedSampler(DATA, num_replicas=1, rank=0))


def own_generator() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=8, shuffle=True, generator=torch.Generator())


def drawn_one_by_one() -> DataLoader[Any]:
    """With replacement, from a generator that the validation draws from, too."""
    return DataLoader(DATA, batch_size=8, shuffle=True, generator=SHARED)


SHARED = torch.Generator()

TASKS: dict[str, Callable[[], Task]] = {
    "dropout and batch normalisation": lambda: small_task(model=net),
    "Adam": lambda: small_task(model=net, optimizer=adam),
    "two groups": lambda: small_task(model=net, optimizer=two_groups),
    "LBFGS": lambda: small_task(optimizer=lbfgs),
    "an optimizer with types of its own": lambda: small_task(optimizer=Coarse),
    "an optimizer with an optimizer": lambda: small_task(optimizer=SAM),
    "schedule-free": lambda: small_task(model=net, optimizer=partial(AdamWScheduleFree, warmup_steps=4)),
    "an lr in a tensor": lambda: small_task(optimizer=lambda p, lr: torch.optim.SGD(p, torch.tensor(lr))),
    "random data, global order": lambda: small_task(
        model=net, train_loader=DataLoader(Noisy(), batch_size=8, shuffle=True)
    ),
    "random data, a generator of its own": lambda: small_task(model=net, train_loader=own_generator()),
    "one generator for both loaders": lambda: small_task(
        model=net,
        train_loader=drawn_one_by_one(),
        val_loader=DataLoader(DATA, batch_size=48, shuffle=True, generator=SHARED),
    ),
    "a sampler that counts": lambda: small_task(
        train_loader=DataLoader(DATA, batch_sampler=BatchSampler(InTurns(), 8, drop_last=False))
    ),
    "a list of batches": lambda: small_task(
        model=net, train_loader=[(INPUTS[k : k + 8], TARGETS[k : k + 8]) for k in range(0, 64, 8)]
    ),
    "a model with attributes": lambda: small_task(model=Counting),
    "a loss with a state": lambda: small_task(loss=CountingLoss()),
    "epochs": lambda: small_task(train_loader=distributed()),
    "one batch": lambda: small_task(model=net, train_loader=[(INPUTS, TARGETS)]),
    "three batches an update, clipped, in half precision": lambda: small_task(
        model=net, accumulate=3, clip=0.5, precision="bf16"
    ),
    "averaged weights": lambda: small_task(model=net, ema=0.9, val_every=3),
    "buffers of every kind": lambda: small_task(model=Buffered),
}
SCHEDULES: dict[str, dict[str, Any]] = {
    name: {"name": name}
    for name in ("constant", "linear", "cosine", "step", "wsd", "one_cycle", "cyclic", "cosine_restarts")
} | {
    "multi_step": {"name": "multi_step"},
    "time_based": {"name": "time_based"},
    "inverse_time": {"name": "inverse_time"},
    "plateau": {"name": "plateau", "patience": 0.01, "factor": 0.5},
    "warmup of a plateau": {
        "name": "warmup",
        "fraction": 0.2,
        "inner": {"name": "plateau", "patience": 0.01},
    },
    "warmup of time_based": {"name": "warmup", "fraction": 0.3, "inner": {"name": "time_based"}},
    "warmup of one_cycle": {"name": "warmup", "fraction": 0.3, "inner": {"name": "one_cycle"}},
}
"""Wsd and the warmups are torch's SequentialLR."""
CUTS = [1, EPOCH - 1, EPOCH, EPOCH + 3, STEPS - 1]
"""The first step, before and at an epoch's end, within the next, and before the last."""


@pytest.mark.parametrize("kind", TASKS)
def test_a_trial_that_goes_on_gives_the_same_bits(kind: str, tmp_path: Path) -> None:
    spec = make_spec(steps=STEPS, name="cosine", seed=3)
    whole = train(TASKS[kind](), spec, tmp_path, Listener())
    for cut in CUTS:
        place = tmp_path / str(cut)
        parts = in_two_parts(TASKS[kind], spec, place, cut)
        assert parts.same(whole), f"cut after step {cut}"
        assert parts.points == whole.points, f"cut after step {cut}"


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_every_schedule_goes_on(kind: str, optimizer: Any, tmp_path: Path) -> None:
    make = partial(small_task, model=net, optimizer=optimizer)
    spec = make_spec(steps=STEPS, schedule=SCHEDULES[kind])
    whole = train(make(), spec, tmp_path, Listener())
    for cut in (3, 13):
        parts = in_two_parts(make, spec, tmp_path / str(cut), cut)
        assert parts.same(whole), f"cut after step {cut}"
        assert parts.points == whole.points, f"cut after step {cut}"


@dataclass
class Falling:
    """A training loss that falls, and is not finite at one update."""

    bad_at: int
    calls: int = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += outputs.requires_grad
        loss = nn.functional.cross_entropy(outputs, targets)
        return loss * float("nan") if self.calls == self.bad_at and outputs.requires_grad else loss


def test_a_divergence_after_a_continuation_is_one_all_the_same(tmp_path: Path) -> None:
    """The first batch's checks, which would call it a wrong input, are for the first batch."""
    spec = make_spec(steps=STEPS)
    cut_short(small_task(loss=Falling(99)), spec, tmp_path, 5)
    result = train(small_task(loss=Falling(1)), spec, tmp_path, Listener()).result
    assert (result.status, result.cause, result.steps_done) == ("diverged", "not_finite", 6)


def test_a_rise_is_found_at_the_same_step(tmp_path: Path) -> None:
    spec = make_spec(lr=0.85, steps=400)

    def make() -> Task:
        rows = TensorDataset(INPUTS, INPUTS.sum(1, keepdim=True))
        loader = DataLoader(rows, batch_size=8, shuffle=True)
        return small_task(
            model=lambda: nn.Linear(4, 1),
            optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
            loss=nn.MSELoss(),
            metrics={},
            train_loader=loader,
            val_loader=loader,
        )

    whole = train(make(), spec, tmp_path, Listener())
    assert (whole.result.status, whole.result.cause) == ("diverged", "loss_rose")
    parts = in_two_parts(make, spec, tmp_path / "parts", whole.result.steps_done - 7)
    assert without_seconds(parts.result) == without_seconds(whole.result)


def test_the_seconds_of_both_parts_count(tmp_path: Path) -> None:
    spec = make_spec(steps=STEPS)
    pause = 0.01

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        time.sleep(pause)
        return nn.functional.cross_entropy(outputs, targets)

    cut_short(small_task(loss=loss), spec, tmp_path, STEPS - 1)
    pause = 0.0
    assert train(small_task(loss=loss), spec, tmp_path, Listener()).result.seconds > 0.01 * (STEPS - 1)


# --- loaders whose passes do not come out the same again --------------------------------------------------


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Rows with noise, without a length."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in zip(INPUTS, TARGETS, strict=True):
            yield inputs + torch.randn(4), targets


class Epochs(Stream):
    """Its order depends on the epoch that it is told, and on nothing else."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in np.random.default_rng(self.epoch).permutation(64):
            yield INPUTS[index], TARGETS[index]


class Own:
    """A loader of the user's, with a length."""

    def __iter__(self) -> Iterator[Any]:
        return iter(DataLoader(DATA, batch_size=8, shuffle=True))

    def __len__(self) -> int:
        return EPOCH


class Changed(DataLoader[Any]):
    """Hands out every batch but the first."""

    def __iter__(self) -> Any:
        batches = super().__iter__()
        next(batches)
        return batches


UNREPEATED: dict[str, Callable[[], Any]] = {
    "a stream": lambda: DataLoader(Stream(), batch_size=8),
    "a stream with epochs": lambda: DataLoader(Epochs(), batch_size=8),
    "a loader of the user's": Own,
    "a DataLoader that was changed": lambda: Changed(DATA, batch_size=8, shuffle=True),
    "worker processes": lambda: DataLoader(DATA, batch_size=8, shuffle=True, num_workers=1),
}


@pytest.mark.parametrize("kind", UNREPEATED)
def test_where_passes_cannot_be_repeated_a_trial_goes_on_from_the_last_one(kind: str, tmp_path: Path) -> None:
    spec = make_spec(steps=STEPS, name="cosine")
    a_pass = EPOCH - 1 if "changed" in kind else EPOCH

    def make() -> Task:
        return small_task(model=net, train_loader=UNREPEATED[kind]())

    whole = train(make(), spec, tmp_path, Listener())
    first = cut_short(make(), spec, tmp_path, 12, since=3)
    second = Listener()
    parts = train(make(), spec, tmp_path, second)
    assert parts.same(whole)
    assert min(step for step, _ in second.points) == a_pass + 1
    kept = [point for point in first.points if point[0] <= a_pass]
    assert kept + second.points == whole.points


@pytest.mark.parametrize(("kind", "said"), [*((kind, True) for kind in UNREPEATED), ("a list", False)])
def test_it_is_said_where_checkpoints_are_made_between_passes_only(
    kind: str, said: bool, tmp_path: Path
) -> None:
    loader = UNREPEATED[kind]() if said else [DATA[:8]] * 2
    listener = Listener()
    train(small_task(train_loader=loader), make_spec(steps=2), tmp_path, listener)
    assert listener.model_info[0].get("checkpoints") == (
        "where the training loader starts again, and nowhere else" if said else None
    )


def test_no_batch_is_drawn_that_nobody_will_train_on(tmp_path: Path) -> None:
    """To know its place, a loader may be asked for one more: but not after the last step."""
    drawn = []

    class Counted(Own):
        def __iter__(self) -> Iterator[Any]:
            for batch in super().__iter__():
                drawn.append(batch)
                yield batch

    spec = make_spec(steps=5)
    train(
        small_task(train_loader=Counted()),
        spec,
        tmp_path,
        Listener(),
        Checkpoints(tmp_path, spec.key, EACH_STEP),
    )
    assert len(drawn) == 5


def test_a_batch_that_was_drawn_to_know_the_place_is_handed_out() -> None:
    batches = Batches(iter(range(5)), 5, RandomStates(()))
    drawn = []
    for _ in range(5):
        drawn.append(next(batches))
        batches.at_place()
        batches.at_place()
    assert drawn == list(range(5))


# --- the files --------------------------------------------------------------------------------------------


def test_the_last_two_are_kept_and_removed_in_the_end(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new", "ab12")
    counts = []
    for step in (3, 9, 10, 100):
        checkpoints.write(step, {"value": torch.ones(3) * step})
        counts.append(len(files(tmp_path / "new")))
    assert counts == [1, 2, 2, 2]
    assert [name.split("-")[:2] for name in files(tmp_path / "new")] == [["ab12", "10"], ["ab12", "100"]]
    newest = Checkpoints(tmp_path / "new", "ab12").newest()
    assert newest is not None
    assert (newest.step, newest.state["value"].tolist()) == (100, [100.0] * 3)
    checkpoints.remove()
    assert not files(tmp_path / "new")


def test_trials_do_not_touch_each_others(tmp_path: Path) -> None:
    for key in ("a1", "b2", "c3"):
        Checkpoints(tmp_path, key).write(5, {})
    (tmp_path / ".b2-7.ckpt.unfinished").write_bytes(b"half")
    (tmp_path / "a1.pt").write_bytes(b"weights")
    Checkpoints(tmp_path, "a1").remove()
    assert [name[:2] for name in files(tmp_path)] == [".b", "b2", "c3"]
    keep_only(tmp_path, {"c3", "d4"})
    assert [name[:2] for name in files(tmp_path)] == ["c3"]
    assert (tmp_path / "a1.pt").exists()


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("spoil", [damage, cut_off])
@pytest.mark.parametrize(("spoilt", "goes_on_at"), [(1, 10), (2, 1)])
def test_a_damaged_checkpoint_is_passed_over(
    spoil: Callable[[Path], None], spoilt: int, goes_on_at: int, tmp_path: Path
) -> None:
    spec = make_spec(steps=STEPS)
    make = partial(small_task, model=net)
    whole = train(make(), spec, tmp_path, Listener())
    place = tmp_path / "parts"
    cut_short(make(), spec, place, 10)
    steps = {int(path.name.split("-")[1]): path for path in place.glob("*.ckpt")}
    assert sorted(steps) == [9, 10]
    for step in sorted(steps, reverse=True)[:spoilt]:
        spoil(steps[step])
    second = Listener()
    with pytest.warns(UserWarning, match="damaged and passed over") as said:
        parts = train(make(), spec, place, second)
    assert len(said) == spoilt
    assert parts.same(whole)
    assert min(step for step, metrics in second.points if "train/loss" in metrics) == goes_on_at


def test_a_damaged_one_does_not_push_out_those_that_follow(tmp_path: Path) -> None:
    for step in (1, 50):
        Checkpoints(tmp_path, "ab").write(step, {})
    damage(next(tmp_path.glob("ab-50-*")))
    checkpoints = Checkpoints(tmp_path, "ab")
    with pytest.warns(UserWarning, match="damaged"):
        checkpoints.newest()
    for step in (2, 3):
        checkpoints.write(step, {})
    assert [name.split("-")[1] for name in files(tmp_path)] == ["2", "3"]


def test_what_is_recorded_is_on_the_disk_before_the_checkpoint(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    checkpoints = Checkpoints(tmp_path, "ab", flush=lambda: seen.append(files(tmp_path)))
    checkpoints.write(1, {})
    assert seen == [[]]


@pytest.mark.parametrize("limit", [100, 2000])
def test_a_full_disk_ends_the_training_and_leaves_the_earlier_ones(limit: int, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "ab")
    checkpoints.write(1, {"weights": torch.ones(4)})
    before = files(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(RecordError, match=r"checkpoint of step 2 cannot .*File too large") as raised:
            checkpoints.write(2, {"weights": torch.ones(5000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("killed_at", "left"),
    [((torch, "save"), 2), ((os, "fsync"), 2), ((Path, "replace"), 2), ((Path, "unlink"), 3)],
)
def test_a_kill_while_one_is_written_leaves_whole_ones_only(
    killed_at: tuple[Any, str], left: int, tmp_path: Path
) -> None:
    """At its end at the latest: what is read then was whole before, or is."""
    steps = (1, 2, 3)
    pid = os.fork()
    if pid == 0:
        for step in steps:
            if step == steps[-1]:
                place, name = killed_at
                setattr(place, name, half_done(getattr(place, name)))
            Checkpoints(tmp_path, "ab").write(step, {"value": torch.ones(5000) * step})
        os._exit(0)  # not killed: the test fails
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    newest = Checkpoints(tmp_path, "ab").newest()
    assert newest is not None
    assert (newest.step, newest.state["value"].unique().tolist()) == (left, [float(left)])
    keep_only(tmp_path, {"ab"})
    assert all(name.endswith(".ckpt") for name in files(tmp_path))


def half_done(function: Callable[..., Any]) -> Callable[..., Any]:
    """Kills the process; what would be written has begun to be."""
    writes = function is torch.save

    def killed(*args: Any, **_: Any) -> None:
        try:
            if writes:
                args[1].write(b"half of a check")
                args[1].flush()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)

    return killed


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"cannot be written in .*file"):
        Checkpoints(tmp_path / "file", "ab").write(1, {})


class Planted:
    """Runs code where it is read as Python would."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def test_no_code_is_run_from_a_checkpoint(tmp_path: Path) -> None:
    """Its hash is right: whoever can write into the folder can make one."""
    target = tmp_path / "was run"
    unnamed = tmp_path / "unnamed"
    torch.save({"planted": Planted(str(target))}, unnamed)
    digest = subprocess.run(["sha256sum", unnamed], capture_output=True, text=True, check=True).stdout[:16]
    unnamed.rename(tmp_path / f"ab-5-{digest}.ckpt")
    with pytest.raises(RecordError, match=f"ab-5-{digest}.ckpt cannot be read.*remove it"):
        Checkpoints(tmp_path, "ab").newest()
    assert not target.exists()


class Holding(torch.optim.SGD):
    """Holds in its groups what no file can take, or what no one should read from one."""

    def __init__(self, held: object, parameters: Iterator[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.param_groups[0]["held"] = held


@pytest.mark.parametrize("held", [lambda: None, np.float64(0.5)], ids=["a function", "a foreign number"])
def test_what_cannot_be_kept_is_said_once_and_trained_all_the_same(held: object, tmp_path: Path) -> None:
    task, spec = small_task(optimizer=partial(Holding, held)), make_spec()
    each_step = Checkpoints(tmp_path, spec.key, EACH_STEP)
    with pytest.warns(UserWarning, match="no checkpoints of trial .* begins anew") as said:
        result = train(task, spec, tmp_path, Listener(), each_step).result
    assert len(said) == 1
    assert result.status == "complete"
    assert not files(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"model": lambda: nn.Linear(4, 2, bias=False)},
        {"model": lambda: nn.Sequential(nn.Linear(4, 2))},
        {"model": lambda: nn.Linear(4, 2).double()},
        {"optimizer": two_groups},
        {"train_loader": DataLoader(DATA, batch_size=8, shuffle=True, num_workers=1)},
        {"train_loader": DataLoader(DATA, batch_size=8, shuffle=True, generator=torch.Generator())},
    ],
    ids=["other parameters", "other parts", "other types", "other groups", "workers", "another generator"],
)
def test_a_checkpoint_of_another_task_is_named(changed: dict[str, Any], tmp_path: Path) -> None:
    spec = make_spec()
    cut_short(small_task(), spec, tmp_path, 5)
    with pytest.raises(RecordError, match=r"-5-.*\.ckpt does not fit the task.*remove it") as raised:
        train(small_task(**changed), spec, tmp_path, Listener())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), True, "60", None])
def test_a_time_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(InputError, match=r"checkpoint_every=.*above 0"):
        check_every(seconds)


def test_one_is_due_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("lrsearch.training.checkpoint.time.monotonic", lambda: now)
    checkpoints = Checkpoints(tmp_path, "ab", 60.0)
    assert not checkpoints.due()
    now = 160.0
    assert checkpoints.due()
    checkpoints.write(1, {})
    assert not checkpoints.due()
    now = 219.0
    assert not checkpoints.due()
    now = 220.0
    assert checkpoints.due()


# --- a GradScaler -----------------------------------------------------------------------------------------


def scaled(place: Path, stop_at: int) -> tuple[list[float], Training]:
    """A training in half precision whose scale grows every third update; returns losses and training."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    loader = DataLoader(DATA, batch_size=8, shuffle=True)
    training = Training(model, optimizer, loader, nn.CrossEntropyLoss(), precision="16")
    assert training.scaler is not None
    training.scaler.set_growth_interval(3)
    losses: list[float] = []

    def observe(step: int, lr: float, loss: float) -> str | None:
        losses.append(loss)
        return "cut" if step == stop_at else None

    rule = DivergenceRule(STEPS)
    log = TrialLog(make_spec(), lambda *_: None, rule, "val/loss")
    checkpoints = TrialCheckpoints(Checkpoints(place, "ab", EACH_STEP), log, rule, [loader])
    fit(training, Cosine(), STEPS, observe, steps_per_epoch=EPOCH, checkpoints=checkpoints)
    return losses, training


def test_a_scaler_goes_on(tmp_path: Path) -> None:
    losses, whole = scaled(tmp_path / "whole", stop_at=99)
    first, _ = scaled(tmp_path / "parts", stop_at=12)
    second, parts = scaled(tmp_path / "parts", stop_at=99)
    assert first[:11] + second == losses
    assert whole.scaler is not None
    assert parts.scaler is not None
    assert whole.scaler.get_scale() != 2**16
    assert parts.scaler.state_dict() == whole.scaler.state_dict()
    assert same_bits(parts.model.weight.detach(), whole.model.weight.detach())  # type: ignore[operator]


# --- signals ----------------------------------------------------------------------------------------------


@dataclass
class Signalled:
    """A loss during which signals come, at one update."""

    numbers: Sequence[signal.Signals]
    at: int
    calls: int = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += outputs.requires_grad
        if self.calls == self.at and outputs.requires_grad:
            for number in self.numbers:
                signal.raise_signal(number)
        return nn.functional.cross_entropy(outputs, targets)


class Terminated(BaseException):
    pass


def terminate(number: int, frame: object) -> None:
    raise Terminated


@pytest.fixture
def handled() -> Iterator[None]:
    """Both signals have their usual handlers: what is started in the background may ignore Ctrl-C."""
    handlers: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: terminate,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    left = {number: signal.signal(number, before[number]) for number in handlers}
    assert left == handlers, "the handlers were not given back"


def signalled(place: Path, numbers: Sequence[signal.Signals]) -> None:
    spec = make_spec()
    with DeferredSignals() as signals:
        run_trial(
            small_task(loss=Signalled(numbers, at=7)),
            spec,
            CPU,
            Listener(),
            objective="val/loss",
            checkpoints=Checkpoints(place, spec.key, signals=signals),
        )


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_signal_stops_a_training_at_the_next_step_with_a_checkpoint(
    number: signal.Signals, raised: type[BaseException], tmp_path: Path
) -> None:
    with pytest.raises(raised):
        signalled(tmp_path, [number])
    assert [name.split("-")[1] for name in files(tmp_path)] == ["7"]
    again = Listener()
    task = small_task(loss=Signalled((), at=0))
    whole = train(task, make_spec(), tmp_path / "whole", Listener())
    parts = train(task, make_spec(), tmp_path, again)
    assert parts.same(whole)
    assert min(step for step, _ in again.points) == 8


@pytest.mark.usefixtures("handled")
def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with pytest.raises(Terminated):
        signalled(tmp_path, [signal.SIGINT, signal.SIGTERM])
    assert not files(tmp_path)


@pytest.mark.usefixtures("handled")
def test_a_signal_is_not_lost_where_no_step_comes() -> None:
    done = []

    def work() -> None:
        with DeferredSignals():
            signal.raise_signal(signal.SIGINT)
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all"]


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with DeferredSignals() as signals:
            signal.raise_signal(signal.SIGINT)
            assert signals.came is None
    finally:
        signal.signal(signal.SIGINT, before)


def forked(end: int, begun: int) -> None:
    """A worker process: says that it is there, and ends when it is told to."""
    try:
        os.write(begun, b".")
        os.read(end, 1)
        os._exit(7)
    finally:
        os._exit(1)


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 7), (signal.SIGTERM, 1)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_process_that_the_loader_forks_works_on_and_can_be_ended(number: signal.Signals, code: int) -> None:
    (end, ends), (there, begun) = os.pipe(), os.pipe()
    with DeferredSignals() as signals:
        child = os.fork()
        if child == 0:
            forked(end, begun)
        os.read(there, 1)
        os.kill(child, number)
        os.write(ends, b".")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
        assert signals.came is None
    for pipe in (end, ends, there, begun):
        os.close(pipe)


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize("at", [1, 5])
def test_what_is_raised_while_a_signal_waits_is_no_failure(at: int, tmp_path: Path) -> None:
    """Where Ctrl-C has ended a worker process, the loader raises."""
    results: list[Trained] = []
    interrupted = Signalled([signal.SIGINT], at)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        found = interrupted(outputs, targets)
        if interrupted.calls == at:
            raise RuntimeError("DataLoader worker exited unexpectedly")
        return found

    def work() -> None:
        spec = make_spec()
        with DeferredSignals() as signals:
            checkpoints = Checkpoints(tmp_path, spec.key, signals=signals)
            results.append(train(small_task(loss=loss), spec, tmp_path, Listener(), checkpoints))

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not results
