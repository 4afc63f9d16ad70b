"""Everything that a training may leave behind, written down: what is equal before and after was put back."""

from __future__ import annotations

import hashlib
import random
from collections import deque

import numpy as np
import torch
from torch import Tensor

from tests.training.zoo import Setup


class Identity:
    """Equal only to the same object; keeps it alive, so that no later object can have its id."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.value is other.value

    def __repr__(self) -> str:
        return f"<{type(self.value).__name__} at {id(self.value):#x}>"

    __hash__ = None  # type: ignore[assignment]


def bits(tensor: Tensor) -> object:
    """Every bit of a tensor, with its kind and place."""
    data = tensor.detach()
    if data.layout is torch.sparse_coo:
        return "sparse", bits(data._indices()), bits(data._values())
    raw = data.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return data.dtype, data.device, tuple(data.shape), data.stride(), hashlib.sha256(raw).hexdigest()


Fingerprint = dict[str, object]


def describe(path: str, value: object, into: Fingerprint) -> None:
    """Write down `value` and all within it, one entry a fact."""
    if isinstance(value, Tensor):
        into[f"{path} is"] = Identity(value)
        into[f"{path} bits"] = bits(value)
        into[f"{path} memory"] = 0 if value.is_sparse else value.data_ptr()
        into[f"{path} flags"] = (value.requires_grad, value.is_leaf, type(value))
        describe(f"{path}.grad", value.grad if value.is_leaf else None, into)
    elif isinstance(value, dict):
        into[f"{path} is"] = Identity(value)
        into[f"{path} keys"] = [Identity(key) if isinstance(key, Tensor) else key for key in value]
        for index, item in enumerate(value.values()):
            describe(f"{path}[{into[f'{path} keys'][index]}]", item, into)  # type: ignore[index]
    elif isinstance(value, (list, tuple, set, deque)):
        into[f"{path} is"] = Identity(value)
        into[f"{path} length"] = len(value)
        for index, item in enumerate(value):
            describe(f"{path}[{index}]", item, into)
    elif isinstance(value, torch.Generator):
        into[path] = bits(value.get_state())
    elif isinstance(value, np.random.Generator):
        into[path] = value.bit_generator.state
    elif isinstance(value, (bool, int, float, str, type(None))):
        into[path] = (type(value), value)
    else:
        into[path] = Identity(value)


def fingerprint(setup: Setup) -> Fingerprint:
    facts: Fingerprint = {
        "random": random.getstate(),
        "numpy": str(np.random.get_state()[1].tolist()) + str(np.random.get_state()[2:]),  # type: ignore[index]  # noqa: NPY002
        "torch": bits(torch.get_rng_state()),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
    }
    for name, module in setup.model.named_modules():
        describe(f"model {name}", vars(module), facts)
        facts[f"model {name} class"] = type(module)
    facts["parameters"] = [Identity(p) for p in setup.model.parameters()]
    describe("optimizer", vars(setup.optimizer), facts)
    if setup.scaler is not None:
        describe("scaler", vars(setup.scaler), facts)
        facts["scaler state"] = setup.scaler.state_dict()
    sampler, batch_sampler = setup.loader.sampler, setup.loader.batch_sampler
    parts = [setup.loader, sampler, batch_sampler, batch_sampler.sampler, setup.loader.dataset]
    for index, part in enumerate(parts):
        describe(f"loader {index}", vars(part), facts)
    return facts


def changes(before: Fingerprint, after: Fingerprint) -> list[str]:
    return [
        key for key in before.keys() | after.keys() if before.get(key, "absent") != after.get(key, "absent")
    ]
