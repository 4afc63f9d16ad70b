"""Batches: pulled without end, split, moved, and told apart by a fingerprint."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lrsearch.errors import InputError
from lrsearch.training.batches import Batches
from lrsearch.training.data import count_targets, describe, split_batch, to_device
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


def test_a_batch_is_described_by_types_and_shapes() -> None:
    batch = {"x": torch.ones(4, 6), "rest": (torch.tensor(1), "text")}
    assert describe(batch) == "{x: float32[4, 6], rest: (int64[], str)}"


@pytest.mark.parametrize(
    ("batch", "rows"),
    [
        (torch.ones(3, 2), 3),
        ((torch.ones(4, 2), torch.ones(4)), 4),
        ({"scale": torch.tensor(1.0), "x": [torch.ones(5)]}, 5),
        ((torch.tensor(1.0), "text"), 1),
        ("text", 1),
    ],
)
def test_the_rows_of_a_batch_are_its_first_tensors(batch: Any, rows: int) -> None:
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
        "fingerprint_reason": "it can only be iterated",
    }
    assert stream.read == 0
