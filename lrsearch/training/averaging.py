"""Averaged weights, which are validated and kept instead of those that are trained."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lrsearch.errors import InputError, first_line


def averaging(model: nn.Module, optimizer: Optimizer, decay: float) -> AveragedModel:
    """The model whose weights and buffers are the exponential average of those after each step.

    Raises InputError for a model that cannot be copied.
    """
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    try:
        averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError("ema", decay, f"the model cannot be copied ({reason})", "leave ema out") from error
    # A step that a GradScaler skips, or that ends before it moves anything, does not come to the hook.
    optimizer.register_step_post_hook(lambda *_: averaged.update_parameters(model))
    return averaged
