"""The built-in tasks: trained for real, and their files read as they are."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import lrsearch
from lrsearch import InputError
from lrsearch.examples import BUILT_IN
from lrsearch.examples.classification import OptimizerName, accuracy
from lrsearch.examples.digits import task as digits
from lrsearch.examples.fashion_mnist import task as fashion_mnist
from lrsearch.examples.idx import read_images
from lrsearch.examples.mnist import task as mnist
from lrsearch.study.task_source import load_task

# --- digits -----------------------------------------------------------------------------------------------

CONFIGURATIONS = [
    {"optimizer": "sgd", "momentum": 0.0, "batch_norm": False},
    {"optimizer": "sgd", "momentum": 0.0, "batch_norm": True},
    {"optimizer": "adam", "batch_norm": False},
    {"optimizer": "adam", "batch_norm": True},
]


@pytest.mark.parametrize("arguments", CONFIGURATIONS, ids=lambda a: " ".join(map(str, a.values())))
def test_digits_have_an_edge_that_moves_little_with_the_length(arguments: dict[str, Any]) -> None:
    edges = []
    for steps in (100, 400, 1000):
        result = lrsearch.range_test(
            digits(**arguments), steps=steps, repeats=3, tracking=False, progress=False
        )
        bracket = result.suggestion.bracket
        assert result.lr is not None
        assert bracket is not None
        assert bracket.high is not None
        assert bracket.low <= result.lr <= bracket.high
        edges.append(bracket.high)
    assert max(edges) < 3 * min(edges)


@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
def test_digits_take_every_optimizer(optimizer: OptimizerName) -> None:
    task = digits(optimizer=optimizer, batch_size=64)
    _, built = task.build(0.03, torch.device("cpu"))
    assert type(built).__name__.lower() == optimizer
    assert built.param_groups[0]["lr"] == 0.03
    assert len(next(iter(task.train_loader))[0]) == 64


def test_digits_hold_a_fifth_back() -> None:
    task = digits()
    assert task.val_loader is not None
    parts = [torch.cat([inputs for inputs, _ in loader]) for loader in (task.train_loader, task.val_loader)]
    assert [len(part) for part in parts] == [1437, 360]
    assert all(part.min() >= 0 and part.max() == 1 for part in parts)


def test_the_lr_of_digits_trains() -> None:
    """The suggested lr teaches the net: from a tenth right answers to nine in ten within two epochs."""
    task = digits()
    lr = lrsearch.range_test(task, repeats=3, steps=200, tracking=False, progress=False).lr
    assert lr is not None
    torch.manual_seed(0)
    model, optimizer = task.build(lr, torch.device("cpu"))
    for _ in range(2):
        for inputs, targets in task.train_loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert task.val_loader is not None
    ((inputs, targets),) = task.val_loader
    assert float(torch.as_tensor(accuracy(model(inputs), targets))) > 0.9


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "mnist"])
def test_the_built_in_names(name: str) -> None:
    assert name in BUILT_IN


def test_a_task_is_named_and_keeps_all_its_arguments() -> None:
    task = load_task("digits", ["batch_size=128", "optimizer=adam", "batch_norm=true"])
    assert isinstance(task, lrsearch.Task)
    assert task.name == "digits"
    assert task.arguments == {
        "optimizer": "adam",
        "batch_size": 128,
        "hidden": 64,
        "momentum": 0.9,
        "batch_norm": True,
    }


# --- Fashion-MNIST ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clothes() -> lrsearch.Task:
    try:
        return fashion_mnist()
    except InputError as error:
        if os.environ.get("LRSEARCH_REQUIRE_DATA") == "1":
            raise
        pytest.skip(str(error))


def test_fashion_mnist_is_whole(clothes: lrsearch.Task) -> None:
    assert clothes.val_loader is not None
    for loader, rows in ((clothes.train_loader, 60_000), (clothes.val_loader, 10_000)):
        labels = torch.cat([targets for _, targets in loader])
        assert torch.bincount(labels).tolist() == [rows // 10] * 10
    inputs, _ = next(iter(clothes.train_loader))
    assert (tuple(inputs.shape), inputs.dtype) == ((64, 784), torch.float32)
    pixels = torch.cat([inputs for inputs, _ in clothes.train_loader])
    assert (round(float(pixels.mean()), 3), round(float(pixels.std()), 3)) == (0.0, 1.0)


def test_five_seeds_agree_on_fashion_mnist(clothes: lrsearch.Task) -> None:
    found = [
        lrsearch.range_test(clothes, seed=seed, tracking=False, progress=False).suggestion
        for seed in range(5)
    ]
    lrs = [suggestion.lr or 0.0 for suggestion in found]
    edges = [suggestion.bracket.high if suggestion.bracket else None for suggestion in found]
    assert all(0.003 < lr < 0.05 for lr in lrs), lrs
    assert max(lrs) < 2 * min(lrs), lrs
    assert all(edge is not None and edge < 1 for edge in edges), edges


# --- files ------------------------------------------------------------------------------------------------


def idx(values: np.ndarray[Any, Any], kind: int = 8) -> bytes:
    header = struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


IMAGES = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 256
LABELS = np.array([4, 0, 9])


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The four files of a tiny MNIST, where LRSEARCH_DATA says."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(IMAGES))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(LABELS))
    monkeypatch.setenv("LRSEARCH_DATA", str(tmp_path / "data"))
    return folder


def pack(files: Path) -> None:
    for path in list(files.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_plain_and_packed(files: Path, packed: bool) -> None:
    if packed:
        pack(files)
    for data in read_images("mnist", [], "fetch it"):
        images, labels = data.tensors
        pixels = torch.tensor(IMAGES.reshape(3, -1) / 255, dtype=torch.float32)
        assert torch.equal(images, (pixels - pixels.mean()) / pixels.std())
        assert torch.equal(labels, torch.tensor(LABELS))


def test_mnist_is_read_from_there(files: Path) -> None:
    inputs, targets = next(iter(mnist(batch_size=3).train_loader))
    assert (inputs.shape, sorted(targets.tolist())) == ((3, 784), [0, 4, 9])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def only_a_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6])


def of_floats(path: Path) -> None:
    path.write_bytes(idx(IMAGES, kind=13))


def a_web_page(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><html><body>404</body></html>")


def missing(path: Path) -> None:
    path.unlink()
    (path.parent / "train-images-idx3-ubyte.txt").write_text("so that the folder is found")


def torn_gzip(path: Path) -> None:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()


def broken_gzip(path: Path) -> None:
    content = bytearray(gzip.compress(path.read_bytes()))
    content[20] ^= 0xFF
    content[60] ^= 0xFF
    path.with_name(f"{path.name}.gz").write_bytes(bytes(content))
    path.unlink()


def no_gzip(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.gz"))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        lengthen,
        empty,
        only_a_header,
        of_floats,
        a_web_page,
        missing,
        torn_gzip,
        broken_gzip,
        no_gzip,
        a_folder,
    ],
)
def test_a_damaged_file_is_named_with_the_mend(files: Path, damage: Any) -> None:
    damage(files / "train-images-idx3-ubyte")
    with pytest.raises(InputError) as caught:
        mnist()
    message = str(caught.value)
    assert message.startswith("task='train-images-idx3-ubyte'")
    assert f"in {files}; fetch the file again" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("make", "name", "mend"),
    [
        (fashion_mnist, "fashion-mnist", "apt install dataset-fashion-mnist"),
        (mnist, "mnist", "download the four files"),
    ],
)
def test_missing_data_say_how_to_get_them(
    make: Any, name: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRSEARCH_DATA", str(tmp_path))
    monkeypatch.setattr("lrsearch.examples.fashion_mnist.PLACES", [str(tmp_path / "none")])
    with pytest.raises(InputError) as caught:
        make()
    message = str(caught.value)
    assert name in message
    assert mend in message
    assert f"$LRSEARCH_DATA/{name}" in message
    assert str(tmp_path / name) in message  # where it was looked for
    assert "\n" not in message


def test_images_and_labels_of_different_number_are_an_error(files: Path) -> None:
    (files / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:2]))
    with pytest.raises(InputError, match="3 images and 2 labels"):
        mnist()
