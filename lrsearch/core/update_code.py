"""How an update is made, as lines of torch to paste."""

from __future__ import annotations

from lrsearch.core.sweep_plan import UpdateSettings

_DTYPES = {"16": "torch.float16", "bf16": "torch.bfloat16"}


def update_code(settings: UpdateSettings, device: str) -> list[str]:
    """The lines of one update on a `device` of this type; none where they are those that everybody knows."""
    if not settings.said():
        return []
    batches, scales = settings.accumulate, settings.precision == "16"
    loss = "loss_function(model(inputs), targets)"
    part = "loss" if batches == 1 else f"loss / {batches}"
    body = ["inputs, targets = next(batches)"]
    if settings.precision == "32":
        body.append(f"loss = {loss}")
    else:
        body.append(f"with torch.autocast({device!r}, dtype={_DTYPES[settings.precision]}):")
        body.append(f"    loss = {loss}")
    body.append(
        f"scaler.scale({part}).backward()"
        if scales
        else f"{part}.backward()"
        if batches == 1
        else f"({part}).backward()"
    )
    if batches > 1:
        body = [f"for _ in range({batches}):", *(f"    {line}" for line in body)]
    if settings.clip is not None:
        body += ["scaler.unscale_(optimizer)"] if scales else []
        body.append(f"torch.nn.utils.clip_grad_norm_(model.parameters(), {settings.clip!r})")
    if scales:  # the scheduler is to follow the updates that are made
        body += ["scale = scaler.get_scale()", "scaler.step(optimizer)", "scaler.update()"]
        body.append(
            "return scaler.get_scale() >= scale  # False: it was skipped, and scheduler.step() is too"
        )
    else:
        body.append("optimizer.step()")
    return [
        "import torch",
        "",
        *([f"scaler = torch.amp.GradScaler({device!r})", ""] if scales else []),
        "",
        "def update(batches):  # an iterator over the training batches",
        "    optimizer.zero_grad()",
        *(f"    {line}" for line in body),
        "",
    ]
