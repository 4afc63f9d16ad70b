"""What a training's next update depends on as plain data, which `torch.load(weights_only=True)` reads."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Sampler

from lrsearch.training.data import to_device
from lrsearch.training.loaders import GENERATORS, generator_state, loader_parts, put_generator_state
from lrsearch.training.snapshot import distinct_cells

State = dict[str, Any]

_SCALARS = (bool, int, float, str, bytes, type(None))
_OF_EVERY_MODULE = vars(nn.Module()).keys() - {"training"}


class RandomStates:
    """The random states that a training draws from: Python's, NumPy's, torch's on every device, the loaders'.

    Of `loaders`: every generator held by a loader, its samplers or its data set, and what a sampler counts
    (its epoch).
    """

    def __init__(self, loaders: Iterable[object]) -> None:
        self._loaders = list(loaders)

    def take(self) -> State:
        """The states now."""
        cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return {
            "python": random.getstate(),
            "numpy": _without_arrays(np.random.get_state(legacy=False)),  # noqa: NPY002
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if cuda else [],
            "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
            "loaders": [_loader_part_state(part) for part in loader_parts(self._loaders)],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The states as they were when `state` was taken; of devices that are not here, nothing.

        Raises ValueError where the loaders are made of other parts.
        """
        random.setstate(state["python"])
        np.random.set_state(_with_arrays(state["numpy"]))  # noqa: NPY002
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available():
            for number, kept in enumerate(state["cuda"][: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(kept, number)
        if state["mps"] is not None and torch.backends.mps.is_available():
            torch.mps.set_rng_state(state["mps"])
        for part, kept in zip(loader_parts(self._loaders), state["loaders"], strict=True):
            if isinstance(part, GENERATORS):
                put_generator_state(part, _with_arrays(kept))
            elif isinstance(part, Sampler):
                vars(part).update(kept)


def module_state(module: nn.Module) -> State:
    """Parameters, buffers and plain attributes of a module and all its parts.

    An attribute is plain where it is a number, a text, a tensor without a graph, a generator, or a list,
    tuple or dict of such.
    """
    return {
        name: {
            "parameters": {key: p.detach() for key, p in part.named_parameters(recurse=False)},
            "buffers": {key: buffer.detach() for key, buffer in part.named_buffers(recurse=False)},
            "attributes": _plain_attributes(part),
        }
        for name, part in module.named_modules()
    }


@torch.no_grad()
def put_module_state(module: nn.Module, state: Mapping[str, Any], device: torch.device) -> None:
    """The module as it was when `state` was taken; tensors keep their place.

    Raises ValueError where it is made of other parts, or of parameters of other shapes.
    """
    parts = dict(module.named_modules())
    _check_names("parts", parts, state)
    for name, part in parts.items():
        parameters = dict(part.named_parameters(recurse=False))
        _check_names("parameters", parameters, state[name]["parameters"])
        for key, kept in state[name]["parameters"].items():
            if not _overwrite(parameters[key].detach(), kept):
                raise ValueError(f"{name}.{key} has another shape or type")
        for key, kept in state[name]["buffers"].items():
            if not _overwrite(getattr(part, key, None), kept):
                setattr(part, key, kept.to(device))
        for key, kept in state[name]["attributes"].items():
            now = part.__dict__.get(key)
            if isinstance(now, GENERATORS):
                put_generator_state(now, _with_arrays(kept))
            elif not _overwrite(now, kept):
                part.__dict__[key] = to_device(kept, device)


def optimizer_state(optimizer: Optimizer) -> State:
    """An optimizer's state and groups, the numbers and texts among its attributes, and the optimizers."""
    inner = {name: _own_state(part) for name, part in _inner_optimizers(optimizer).items()}
    return {**_own_state(optimizer), "inner": inner}


def put_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """The optimizer as it was when `state` was taken. Raises ValueError where its groups are others."""
    inner = _inner_optimizers(optimizer)
    _check_names("optimizers", inner, state["inner"])
    shared = [
        (part, what)
        for part in inner.values()
        for what in ("param_groups", "state")
        if getattr(part, what) is getattr(optimizer, what)
    ]
    _put_own_state(optimizer, state)
    for name, part in inner.items():
        _put_own_state(part, state["inner"][name])
    for part, what in shared:  # torch loads into new ones
        setattr(part, what, getattr(optimizer, what))


def _inner_optimizers(optimizer: Optimizer) -> dict[str, Optimizer]:
    """Those that it holds as attributes: SAM leaves the update to one."""
    return {name: value for name, value in vars(optimizer).items() if isinstance(value, Optimizer)}


def _own_state(optimizer: Optimizer) -> State:
    own = {name: value for name, value in vars(optimizer).items() if type(value) in _SCALARS}
    return {"state_dict": optimizer.state_dict(), "attributes": own}


def _put_own_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    optimizer.load_state_dict(state["state_dict"])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in state["state_dict"]["param_groups"] for number in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        for name, kept in state["state_dict"]["state"].get(number, {}).items():
            now = optimizer.state[parameter].get(name)
            # torch turns what an optimizer keeps into the parameter's own type.
            if isinstance(now, Tensor) and isinstance(kept, Tensor) and now.dtype != kept.dtype:
                optimizer.state[parameter][name] = kept.to(now.device)
    vars(optimizer).update(state["attributes"])


def _loader_part_state(part: object) -> Any:
    if isinstance(part, GENERATORS):
        return _without_arrays(generator_state(part))
    if isinstance(part, Sampler):
        return {name: value for name, value in vars(part).items() if type(value) in _SCALARS}
    return None


def _plain_attributes(part: nn.Module) -> State:
    kept: State = {}
    for name, value in vars(part).items():
        if name in _OF_EVERY_MODULE:
            continue
        if isinstance(value, GENERATORS):
            kept[name] = _without_arrays(generator_state(value))
        elif _is_plain(value):
            kept[name] = value
    return kept


def _is_plain(value: object) -> bool:
    if type(value) is Tensor:
        return not value.requires_grad
    if type(value) is dict:
        return all(type(key) in _SCALARS and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return type(value) in _SCALARS


def _overwrite(now: object, kept: object) -> bool:
    """Write into the tensor that is there, whatever else may share its memory; False where none fits."""
    if not isinstance(now, Tensor) or not isinstance(kept, Tensor):
        return False
    if now.shape != kept.shape or now.dtype != kept.dtype:
        return False
    distinct_cells(now).copy_(distinct_cells(kept))
    return True


def _check_names(what: str, now: Iterable[str], kept: Iterable[str]) -> None:
    if differing := sorted(set(now).symmetric_difference(kept)):
        raise ValueError(f"its {what} are others: {', '.join(differing[:3])}")


def _without_arrays(value: Any) -> Any:
    """NumPy's generators hold arrays of unsigned integers: here they are tensors of signed ones."""
    if isinstance(value, dict):
        return {key: _without_arrays(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.view(f"i{value.itemsize}").copy())
    return value


def _with_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_arrays(inner) for key, inner in value.items()}
    if isinstance(value, Tensor) and value.dtype in (torch.int32, torch.int64):
        return value.numpy().view(f"u{value.element_size()}")
    return value
