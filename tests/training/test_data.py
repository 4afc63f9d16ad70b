"""Batches: pulled without end, split, moved, and told apart by a fingerprint."""

from __future__ import annotations

import itertools
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import (
    BatchSampler,
    ChainDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
)

from lrsearch.errors import InputError
from lrsearch.training.batches import Batches
from lrsearch.training.data import batch_count, count_targets, describe, split_batch, to_device
from lrsearch.training.fingerprint import describe_data

Pair = namedtuple("Pair", ["inputs", "targets"])


def test_the_loader_starts_again_at_its_end() -> None:
    assert list(islice(Batches([1, 2, 3], needed=8), 8)) == [1, 2, 3, 1, 2, 3, 1, 2]


def test_each_pass_is_shuffled_anew() -> None:
    loader = DataLoader(TensorDataset(torch.arange(32)), batch_size=32, shuffle=True)
    torch.manual_seed(0)
    twice = DataLoader(TensorDataset(torch.arange(32)), batch_size=16, shuffle=True)
    drawn = [batch[0].tolist() for batch in islice(Batches(twice, needed=4), 4)]
    assert sorted(drawn[0] + drawn[1]) == sorted(drawn[2] + drawn[3]) == list(range(32))
    assert drawn[0] + drawn[1] != drawn[2] + drawn[3]
    assert len(loader) == 1


def test_one_batch_may_be_the_whole_loader() -> None:
    assert list(islice(Batches([1], needed=3), 3)) == [1, 1, 1]


class Epochs(IterableDataset[int]):
    """Another order in each epoch, as streams have it: from the epoch it is told, and no random state."""

    def __init__(self, *, shared: bool = False) -> None:
        self.epoch: int | Tensor = torch.tensor(7) if shared else 7

    def set_epoch(self, epoch: int) -> None:
        if isinstance(self.epoch, Tensor):
            self.epoch.fill_(epoch)  # as where worker processes are to see it
        else:
            self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng(int(self.epoch)).permutation(32).tolist())


ROWS: Any = list(range(32))
EPOCHS: dict[str, Callable[[], DataLoader[Any]]] = {
    "a distributed sampler": lambda: DataLoader(
        ROWS, batch_size=8, sampler=DistributedSampler(ROWS, num_replicas=1, rank=0)
    ),
    "one inside a batch sampler": lambda: DataLoader(
        ROWS, batch_sampler=BatchSampler(DistributedSampler(ROWS, num_replicas=1, rank=0), 8, False)
    ),
    "a stream": lambda: DataLoader(Epochs(), batch_size=8),
    "streams in a row": lambda: DataLoader(ChainDataset([Epochs()]), batch_size=8),
}


def passes(loader: DataLoader[Any], seed: int, count: int = 3) -> list[tuple[int, ...]]:
    batches = Batches(loader, needed=4 * count, seed=seed)
    drawn = [torch.as_tensor(next(batches)).flatten().tolist() for _ in range(4 * count)]
    return [tuple(itertools.chain(*drawn[4 * k : 4 * k + 4])) for k in range(count)]


@pytest.mark.parametrize("kind", EPOCHS)
def test_every_pass_of_every_seed_has_an_order_of_its_own(kind: str) -> None:
    orders = [order for seed in range(3) for order in passes(EPOCHS[kind](), seed)]
    assert all(sorted(order) == list(range(32)) for order in orders)
    assert len(set(orders)) == 9
    assert passes(EPOCHS[kind](), 1) == orders[3:6]


@pytest.mark.parametrize("batches", [[], iter(())])
def test_a_loader_without_a_batch_is_an_error(batches: Any) -> None:
    with pytest.raises(InputError, match="yields no batch"):
        next(Batches(batches, needed=10))


def test_a_generator_that_ends_too_early_says_how_many_there_were() -> None:
    drawn = Batches((k for k in range(5)), needed=10)
    assert list(islice(drawn, 5)) == list(range(5))
    with pytest.raises(InputError, match="after 5 batches of the 10"):
        next(drawn)


@pytest.mark.parametrize(
    ("batch", "parts"),
    [
        ((1, 2), ((1,), {}, 2)),
        ([1, 2], ((1,), {}, 2)),
        ((1, 2, 3), ((1, 2), {}, 3)),
        (Pair(1, 2), ((1,), {}, 2)),
        ({"ids": 1, "mask": 2, "labels": 3}, ((), {"ids": 1, "mask": 2}, 3)),
        ({"x": 1, "y": 2}, ((), {"x": 1}, 2)),
    ],
)
def test_the_target_is_the_last_or_the_one_so_named(batch: Any, parts: Any) -> None:
    assert split_batch(batch) == parts


@pytest.mark.parametrize("batch", [torch.ones(2), (1,), {"x": 1}, "text", 7])
def test_other_batches_need_a_step(batch: Any) -> None:
    with pytest.raises(InputError, match="step"):
        split_batch(batch)


def test_every_tensor_of_a_batch_is_moved() -> None:
    here = torch.ones(2)
    moved = to_device({"a": [here, "text"], "b": Pair(here, (here, 3))}, torch.device("meta"))
    assert isinstance(moved["b"], Pair)
    tensors = [moved["a"][0], moved["b"].inputs, moved["b"].targets[0]]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved["a"][1], moved["b"].targets[1]) == ("text", 3)


class Encoding(UserDict[str, Any]):
    """As tokenizers return it: a mapping that can be moved."""

    def to(self, device: torch.device) -> Encoding:
        return Encoding({key: value.to(device) for key, value in self.items()})


class Output(dict[str, Any]):
    """A dict with attributes, which its class does not take."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


@dataclass(frozen=True)
class Sample:
    x: Tensor
    rest: tuple[Any, ...]
    seen: int = field(default=0, init=False)


class Graphs:
    """A batch of graphs, which is moved in place and returns nothing."""

    num_graphs = 3

    def __init__(self) -> None:
        self.x = torch.ones(7, 2)

    def to(self, device: torch.device) -> None:
        self.x = self.x.to(device)


def output() -> Output:
    made = Output("made")
    made["x"] = torch.ones(2)
    return made


MOVED: dict[str, tuple[Any, Callable[[Any], list[Tensor]]]] = {
    "packed": (pack_sequence([torch.ones(3), torch.ones(2)]), lambda batch: [batch.data]),
    "an encoding": (Encoding(ids=torch.ones(2)), lambda batch: [batch["ids"]]),
    "graphs": (Graphs(), lambda batch: [batch.x]),
    "an ordered dict": (OrderedDict(x=torch.ones(2)), lambda batch: [batch["x"]]),
    "a user's dict": (UserDict(x=torch.ones(2)), lambda batch: [batch["x"]]),
    "a default dict": (defaultdict(list, x=[torch.ones(2)]), lambda batch: batch["x"]),
    "a proxy": (MappingProxyType({"x": torch.ones(2)}), lambda batch: [batch["x"]]),
    "a dict of its own making": (output(), lambda batch: [batch["x"]]),
    "a dataclass": (Sample(torch.ones(2), (torch.ones(1), "text")), lambda batch: [batch.x, batch.rest[0]]),
    "a named tuple": (Pair(torch.ones(2), {"a": torch.ones(2)}), lambda batch: [batch[0], batch[1]["a"]]),
    "a result of torch": (torch.ones(2, 2).max(1), lambda batch: [batch.values, batch.indices]),
    "a size": ([torch.ones(2), torch.Size([2])], lambda batch: [batch[0]]),
}


@pytest.mark.parametrize("kind", MOVED)
def test_a_batch_keeps_its_class_on_the_way(kind: str) -> None:
    batch, tensors = MOVED[kind]
    moved = to_device(batch, torch.device("meta"))
    assert type(moved) is type(batch)
    assert {tensor.device.type for tensor in tensors(moved)} == {"meta"}
    if not isinstance(batch, Graphs):  # a list of batches is read again and again
        assert {tensor.device.type for tensor in tensors(batch)} == {"cpu"}
    if isinstance(batch, Output):
        assert moved.name == "made"


def test_a_batch_is_described_by_types_and_shapes() -> None:
    batch = {"x": torch.ones(4, 6), "rest": (torch.tensor(1), "text")}
    assert describe(batch) == "{x: float32[4, 6], rest: (int64[], str)}"


@pytest.mark.parametrize(
    ("batch", "rows"),
    [
        (torch.ones(3, 2), 3),
        ((torch.ones(4, 2), torch.ones(4)), 4),
        ((torch.ones(9, 4, 2), torch.ones(4)), 4),
        ((torch.ones(4, 9), torch.ones(4, 9).long()), 36),
        ((torch.ones(2, 3), torch.tensor([[1, 2, -100], [0, -100, -100]])), 3),
        ((torch.ones(2, 3), pack_sequence([torch.ones(3), torch.ones(2)])), 5),
        (({"ids": torch.ones(7, 2)}, {"a": torch.ones(4), "b": torch.ones(4, 9)}), 4),
        ((torch.ones(2, 3, 8, 8), [{"boxes": torch.ones(5, 4)}, {"boxes": torch.ones(1, 4)}]), 2),
        ((torch.ones(2, 3, 8, 8), [torch.ones(5, 4), torch.ones(1, 4)]), 2),
        ((torch.ones(3, 2), ["a", "b", "c"]), 3),
        ((torch.ones(3, 2), np.ones(3)), 3),
        (Graphs(), 3),
        (pack_sequence([torch.ones(3), torch.ones(2)]), 5),
        ({"scale": torch.tensor(1.0), "x": [torch.ones(5)]}, 5),
        ((torch.tensor(1.0), "text"), 1),
        ("text", 1),
    ],
)
def test_a_batch_weighs_as_much_as_it_has_targets(batch: Any, rows: int) -> None:
    assert count_targets(batch) == rows


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Augments at random, from generators of all kinds."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.rng = np.random.default_rng(3)

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.rand(3) + self.rng.normal() + np.random.rand()  # noqa: NPY002
        return self.scale * index + noise, torch.tensor(index % 3)


def fingerprint(data: Any) -> str:
    facts = describe_data(DataLoader(data, batch_size=4))
    assert facts is not None
    return str(facts["fingerprint"])


def pairs(last: float = 1.0) -> TensorDataset:
    inputs = torch.ones(200, 3)
    inputs[196:, 1] = last
    return TensorDataset(inputs, torch.zeros(200))


def test_the_same_data_have_the_same_fingerprint() -> None:
    assert fingerprint(pairs()) == fingerprint(pairs())
    assert len(fingerprint(pairs())) == 16


@pytest.mark.parametrize(
    "other",
    [
        pairs(2.0),
        TensorDataset(torch.ones(201, 3), torch.zeros(201)),
        TensorDataset(torch.ones(200, 3).double(), torch.zeros(200)),
        TensorDataset(torch.ones(200, 3), torch.zeros(200, dtype=torch.int64)),
    ],
    ids=["a value", "a row more", "another type", "other targets"],
)
def test_other_data_have_another(other: TensorDataset) -> None:
    assert fingerprint(other) != fingerprint(pairs())


def test_random_augmentation_does_not_change_it_and_is_not_disturbed() -> None:
    data, same = Noisy(), Noisy()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state()
    assert fingerprint(data) == fingerprint(data) == fingerprint(Noisy())
    assert fingerprint(data) != fingerprint(Noisy(scale=2.0))
    assert torch.equal(before, torch.get_rng_state())
    assert data.rng.normal() == same.rng.normal()


def sparse(value: float) -> Tensor:
    return torch.tensor([[0.0, 1.0], [value, 0.0]]).to_sparse()


class Words(Dataset[Tensor]):
    """Keyed by words, as `sampler=words` reads it."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, word: str) -> Tensor:
        return {"a": torch.ones(2), "b": torch.zeros(2)}[word]


class Endless(Words):
    def __len__(self) -> int:
        raise NotImplementedError("it has no end")


class Owner:
    """A loader whose data are whatever it holds."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.ones(2), torch.ones(2))])


DATA: dict[str, Callable[[float], Any]] = {
    "a dict": lambda value: {"a": torch.ones(2), "b": torch.tensor([value])},
    "a frame": lambda value: pd.DataFrame({"x": [1.0, value], "name": ["a", "b"]}),
    "a list": lambda value: [(torch.ones(2), "a"), (torch.ones(2) * value, "b")],
    "sparse": lambda value: [sparse(value)],
    "compressed": lambda value: [sparse(value).to_dense().to_sparse_csc()],
    "complex": lambda value: [torch.tensor([1j * value]).conj()],
    "dates": lambda value: pd.DataFrame({"x": [1.0], "day": [pd.Timestamp(int(value), unit="D")]}),
    "records": lambda value: np.array([(1.0, str(value))], dtype=[("x", float), ("name", object)]),
    "paths": lambda value: [Path(f"{value}.png")],
    "objects": lambda value: [np.array(["a", value], dtype=object)],
    "packed": lambda value: [pack_sequence([torch.ones(3), torch.full((2,), value)])],
    "dataclasses": lambda value: [Sample(torch.tensor([value]), ())],
}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.filterwarnings("ignore:Sparse CSC tensor support:UserWarning")
def test_data_of_any_kind_have_a_fingerprint(kind: str) -> None:
    one, same, other = (describe_data(Owner(DATA[kind](value))) for value in (2.0, 2.0, 3.0))
    assert one is not None
    assert other is not None
    assert one["fingerprint"]
    assert one == same
    assert one["fingerprint"] != other["fingerprint"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (Words(), "KeyError: 0"),
        (Endless(), "NotImplementedError: it has no end"),
        (torch.ones(3, device="meta"), "meta"),
        (iter([1]), "it cannot be read by index"),
        (None, "it cannot be read by index"),
    ],
)
def test_a_fingerprint_that_cannot_be_had_is_unknown_with_its_reason(data: Any, reason: str) -> None:
    facts = describe_data(Owner(data))
    assert facts is not None
    assert facts["fingerprint"] is None
    assert reason in facts["fingerprint_reason"]


class Combined:
    """As lightning's: it knows its length once it is iterated, and raises before."""

    def __init__(self) -> None:
        self.begun = False

    def __iter__(self) -> Iterator[int]:
        self.begun = True
        return iter(range(4))

    def __len__(self) -> int:
        if not self.begun:
            raise RuntimeError("please call iter(combined_loader) first")
        return 4


def test_a_length_that_raises_is_unknown_and_stays_so() -> None:
    loader = Combined()
    assert batch_count(loader) is None
    assert list(loader) == [0, 1, 2, 3]
    assert batch_count(loader) is None


class Stream(IterableDataset[Tensor]):
    def __init__(self) -> None:
        self.read = 0

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[Tensor]:
        self.read += 1
        return iter(torch.ones(8, 2))


def test_a_stream_is_described_without_being_read() -> None:
    stream = Stream()
    assert describe_data(DataLoader(stream, batch_size=4)) == {
        "name": "Stream",
        "items": None,
        "batches": 2,
        "batch_size": 4,
        "fingerprint": None,
        "fingerprint_reason": "it cannot be read by index",
    }
    assert stream.read == 0
