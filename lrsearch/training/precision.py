"""Autocast: half precision in the forward pass, and the way back to full precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lrsearch.core.sweep_plan import Precision
from lrsearch.errors import InputError, first_line
from lrsearch.training.data import entries, rebuilt

_DTYPES = {"16": torch.float16, "bf16": torch.bfloat16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """The context of a forward pass in this precision."""
    if precision == "32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise InputError for a precision in which a task is not to be trained on this device."""
    reason = "float16 on a CPU is slower and less exact than either of the others"
    if precision != "16" or device.type != "cpu":
        try:
            with autocast(precision, device):
                return
        except RuntimeError as error:
            reason = f"is not there on {device.type} ({first_line(error)})"
    raise InputError("precision", precision, reason, "use precision='bf16' or '32', or a GPU")


def in_full(outputs: Any) -> Any:
    """The same outputs in float32 where they are in half precision: not every metric takes that."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.dtype in _DTYPES.values() else outputs
    held = entries(outputs)
    return outputs if held is None else rebuilt(outputs, {key: in_full(value) for key, value in held.items()})
