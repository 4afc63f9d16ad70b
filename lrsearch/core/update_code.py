"""How an update is made, as lines of torch to paste."""

from __future__ import annotations

from lrsearch.core.sweep_plan import TrainingSettings

_DTYPES = {"16": "torch.float16", "bf16": "torch.bfloat16"}
_BEFORE_ALL = "def update(batches):  # an iterator over the training batches"


def update_code(settings: TrainingSettings, device: str) -> list[str]:
    """The lines of one update on a `device` of this type; none where they are those that everybody knows."""
    if not settings.terms.keys() - {"val_every"}:
        return []
    body = ["optimizer.zero_grad()", *_gradient(settings, device), *_step(settings)]
    return ["import torch", "", *_made_once(settings, device), "", _BEFORE_ALL, *_indented(body), ""]


def _made_once(settings: TrainingSettings, device: str) -> list[str]:
    lines = []
    if settings.ema is not None:
        lines += [
            "from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn",
            "",
            "# averaged.module is the model to validate and to keep",
            f"average = get_ema_multi_avg_fn({settings.ema!r})",
            "averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)",
        ]
    if settings.compile:
        options = {} if isinstance(settings.compile, bool) else settings.compile
        arguments = ["model", *(f"{name}={value!r}" for name, value in options.items())]
        lines.append(f"model = torch.compile({', '.join(arguments)})")
    if settings.precision == "16":
        lines.append(f"scaler = torch.amp.GradScaler({device!r})")
    return [*lines, ""] if lines else []


def _gradient(settings: TrainingSettings, device: str) -> list[str]:
    batches, scales = settings.accumulate, settings.precision == "16"
    lines = ["inputs, targets = next(batches)", "loss = loss_function(model(inputs), targets)"]
    if settings.precision != "32":
        lines[1:] = [
            f"with torch.autocast({device!r}, dtype={_DTYPES[settings.precision]}):",
            *_indented(lines[1:]),
        ]
    if batches > 1:
        lines.append(f"loss = loss / {batches}")
    lines.append("scaler.scale(loss).backward()" if scales else "loss.backward()")
    if batches > 1:
        lines = [f"for _ in range({batches}):", *_indented(lines)]
    if settings.clip is not None:
        lines += ["scaler.unscale_(optimizer)"] if scales else []
        lines.append(f"torch.nn.utils.clip_grad_norm_(model.parameters(), {settings.clip!r})")
    return lines


def _step(settings: TrainingSettings) -> list[str]:
    average = [] if settings.ema is None else ["averaged.update_parameters(model)"]
    if settings.precision != "16":
        return ["optimizer.step()", *average]
    return [
        "scale = scaler.get_scale()",
        "scaler.step(optimizer)",
        "scaler.update()",
        "if scaler.get_scale() < scale:",
        "    return False  # the scaler skipped this update, and so is scheduler.step() to be",
        *average,
        "return True",
    ]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
