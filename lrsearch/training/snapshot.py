"""Put everything back, bit for bit: model, optimizer, scaler, loaders and random states."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol, get_args

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lrsearch.errors import InputError
from lrsearch.training.loaders import (
    GENERATORS,
)
from lrsearch.training.random_state import Restore, _rewinder, preserve_random_state, refill
from lrsearch.training.tensor_store import DiskKeeper, MemoryKeeper

Keep = Literal["device", "cpu", "disk"]


class Kept(Protocol):
    """What `preserve_state` keeps."""

    def before(self, tensor: torch.Tensor) -> torch.Tensor:
        """The `distinct_cells` of a tensor as it was on entry; the present ones where it was not there."""


_SCALARS = (bool, int, float, complex, str, bytes, type(None))


@contextmanager
def preserve_state(
    model: nn.Module,
    optimizer: Optimizer | None = None,
    *,
    scaler: torch.amp.GradScaler | None = None,
    loaders: Iterable[object] = (),
    keep: Keep = "device",
) -> Iterator[Kept]:
    """Put model, optimizer, scaler, loaders and random states back on leaving, however the block ends.

    Everything is put back in place and bit for bit: parameters, buffers, gradients (or their absence),
    `requires_grad`, train/eval flags, attributes and hooks of modules, optimizer state and param groups with
    their keys, an `optimizer.step` that a scheduler wrapped, and the scaler. The random states are those of
    Python, NumPy and torch on all devices, together with torch's deterministic flags. Tensor, dict and list
    objects stay the same objects. What the block adds to the model or the optimizer is removed.

    Parameters
    ----------
    model : nn.Module
        The model.
    optimizer : torch.optim.Optimizer, optional
        Its optimizer.
    scaler : torch.amp.GradScaler, optional
        The scaler of mixed precision.
    loaders : iterable
        Data loaders, whose generators, samplers and epochs are put back too.
    keep : {"device", "cpu", "disk"}
        Where the one copy of the tensors lies meanwhile: where they are, in main memory, or in a temporary
        file.

    Yields
    ------
    Kept
        What was kept: ``kept.before(tensor)`` is the tensor as it was on entry.

    Raises
    ------
    InputError
        For an unknown `keep`, a lazy module without its first batch, and optimizer state that cannot be
        copied.

    Notes
    -----
    Tied tensors are copied once; gradients are copied only where they exist on entry.

    Not rewound are one-shot iterators, worker processes that are already running, and what lies inside
    attributes of modules that are neither tensors, generators nor built-in containers (such attributes are
    put back by reference).

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> import lrsearch
    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> before = model.weight.clone()
    >>> with lrsearch.preserve_state(model, optimizer):
    ...     model(torch.randn(4, 2)).sum().backward()
    ...     optimizer.step()
    ...     torch.equal(model.weight, before)
    False
    >>> torch.equal(model.weight, before), model.weight.grad is None
    (True, True)
    """
    if keep not in get_args(Keep):
        raise InputError("keep", keep, "is no place to keep a copy", 'use "device", "cpu" or "disk"')
    check_initialised(model)
    with ExitStack() as stack:
        stack.enter_context(preserve_random_state(loaders))
        keeper: MemoryKeeper | DiskKeeper = MemoryKeeper(to_cpu=keep == "cpu")
        if keep == "disk":
            keeper = DiskKeeper(stack.enter_context(TemporaryDirectory(prefix="lrsearch-state-")))
        snapshot = _Snapshot(keeper)
        for owner in (model, optimizer, scaler):
            snapshot.add(owner)
        keeper.finish()
        # Pushed only now: a copy that fails on entry (no memory, full disk) leaves nothing to put back.
        stack.callback(snapshot.restore)
        yield snapshot


def check_initialised(model: nn.Module) -> None:
    """Raises InputError for a lazy module that has not seen its first batch."""
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            raise InputError(
                "model",
                type(model).__name__,
                f"{name} is not initialised yet",
                "run one batch through it first",
            )


@contextmanager
def preserve_buffers(models: Iterable[nn.Module]) -> Iterator[None]:
    """Put the buffers of modules back on leaving (the running statistics of BatchNorm), and their gradients.

    Inside, no parameter has a gradient.
    """
    snapshot = _Snapshot(MemoryKeeper(to_cpu=False))
    parts = [part for model in models for part in model.modules()]
    gradients = [(p, p.grad) for part in parts for p in part.parameters(recurse=False)]
    for part in parts:
        snapshot.add(part._buffers)
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        snapshot.restore()
        for parameter, gradient in gradients:
            parameter.grad = gradient


@dataclass(frozen=True)
class _HeldTensor:
    tensor: torch.Tensor
    data: torch.Tensor  # shares the tensor's memory, so that a `.data` swapped in the block can be put back
    kept: Callable[[], torch.Tensor]
    requires_grad: bool
    is_leaf: bool
    grad: torch.Tensor | None

    def restore(self) -> None:
        tensor = self.tensor
        if self.is_leaf and not tensor.is_leaf:  # a buffer that was updated with a value that has a graph
            tensor.detach_()
        # Through `data` and not the tensor: a graph that was built before the block stays valid.
        distinct_cells(self.data).copy_(self.kept())
        tensor.data = self.data
        if tensor.requires_grad != self.requires_grad:
            tensor.requires_grad_(self.requires_grad)
        if self.is_leaf:
            tensor.grad = self.grad


class _Snapshot:
    """What stood where: containers with their contents, tensors with their values."""

    def __init__(self, keeper: MemoryKeeper | DiskKeeper) -> None:
        self._keeper = keeper
        self._seen: dict[int, tuple[object, object]] = {}  # id -> (object, what is put back for it)
        self._kept: dict[tuple[object, ...], Callable[[], torch.Tensor]] = {}
        self._contents: list[tuple[Any, Any]] = []
        self._restores: list[Restore] = []
        self._tensors: dict[int, _HeldTensor] = {}

    def before(self, tensor: torch.Tensor) -> torch.Tensor:
        """The cells that a tensor had."""
        held = self._tensors.get(id(tensor))
        return distinct_cells(tensor.detach()) if held is None else held.kept()

    def add(self, value: object, *, copy_objects: bool = False) -> object:
        """Record `value` and all within it; return what belongs in its place on restoring.

        That is `value` itself; with `copy_objects`, a deep copy of an object that we cannot look into.
        """
        if isinstance(value, _SCALARS):  # not remembered: a list of a million numbers is no rare attribute
            return value
        if id(value) in self._seen:
            return self._seen[id(value)][1]
        self._seen[id(value)] = (value, value)
        if isinstance(value, torch.Tensor):
            self._add_tensor(value)
        elif isinstance(value, Optimizer):
            for name in ("state", "param_groups", "defaults"):
                self.add(getattr(value, name), copy_objects=True)
            self.add(vars(value))
        elif isinstance(value, nn.Module):
            # TorchScript keeps these outside the module's __dict__.
            for part in (*value.parameters(recurse=False), *value.buffers(recurse=False), *value.children()):
                self.add(part)
            # A parametrization changes the class.
            self._restores.append(partial(object.__setattr__, value, "__class__", type(value)))
            self._restores.append(partial(setattr, value, "training", value.training))
            self.add(vars(value))
        elif isinstance(value, torch.amp.GradScaler):
            self.add(vars(value))
        elif isinstance(value, dict):
            self._contents.append(
                (value, {k: self.add(v, copy_objects=copy_objects) for k, v in value.items()})
            )
        elif isinstance(value, (list, deque)):
            self._contents.append((value, [self.add(v, copy_objects=copy_objects) for v in value]))
        elif isinstance(value, set):
            self._contents.append((value, set(value)))
        elif isinstance(value, tuple):
            for item in value:
                self.add(item)
        elif isinstance(value, GENERATORS):
            self._restores.append(_rewinder(value))
        elif copy_objects and not callable(value):
            self._seen[id(value)] = (value, _deep_copy(value))
        return self._seen[id(value)][1]

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back in place."""
        for container, contents in self._contents:
            refill(container, contents)
        for restore in self._restores:
            restore()

    def _add_tensor(self, tensor: torch.Tensor) -> None:
        grad = tensor.grad if tensor.is_leaf else None
        if grad is not None:
            self.add(grad)  # before its owner, so that it is whole when it is handed back
        data = tensor.data
        held = _HeldTensor(tensor, data, self._keep(data), tensor.requires_grad, tensor.is_leaf, grad)
        self._restores.append(held.restore)
        self._tensors[id(tensor)] = held

    def _keep(self, data: torch.Tensor) -> Callable[[], torch.Tensor]:
        cells = distinct_cells(data)
        # Only of a plain tensor does the address say whether two of them share their memory.
        if type(cells) is not torch.Tensor or cells.layout is not torch.strided or not cells.data_ptr():
            return self._keeper.keep(cells)
        place = (cells.device, cells.data_ptr(), cells.dtype, cells.shape, cells.stride())
        if place not in self._kept:
            self._kept[place] = self._keeper.keep(cells)
        return self._kept[place]


def distinct_cells(data: torch.Tensor) -> torch.Tensor:
    """The tensor without its expanded dimensions: copy_ refuses to write one cell of memory twice."""
    if data.layout is torch.strided:
        for dim, (size, stride) in enumerate(zip(data.shape, data.stride(), strict=True)):
            if stride == 0 and size > 1:
                data = data.narrow(dim, 0, 1)
    return data


def strided_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that a sparse, quantized or nested tensor is made of; a plain one as it is."""
    if tensor.is_nested:
        return [part for inner in tensor.unbind() for part in strided_parts(inner)]
    if tensor.layout is torch.sparse_coo:
        entries = tensor.coalesce()
        return [entries.indices(), entries.values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    if tensor.is_quantized and tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return [tensor.int_repr(), torch.tensor([tensor.q_scale(), tensor.q_zero_point()])]
    if tensor.is_quantized:
        return [tensor.int_repr(), tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()]
    return [tensor.resolve_conj().resolve_neg()]


def _deep_copy(value: object) -> object:
    try:
        return copy.deepcopy(value)
    except Exception as error:
        kind = type(value).__name__
        problem = f"such state cannot be copied ({error})"
        raise InputError("optimizer", kind, problem, "give the type a __deepcopy__") from error
