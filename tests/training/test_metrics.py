"""Metrics: of the whole set, of objects that gather by themselves, and of batches one by one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lrsearch
from lrsearch.errors import InputError
from lrsearch.training.metrics import MetricError
from lrsearch.training.task import Task
from lrsearch.training.validation import validate
from tests.training.tasks import CPU, make_spec, run, small_task

INPUTS = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
SCORES = INPUTS[:, 0]
LABELS = (SCORES + INPUTS[:, 1] > 0.8).long().sort().values  # most batches hold one class only
REAL = INPUTS.sum(1)


class First(nn.Module):
    """Its output is the first column; there is nothing to train."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, 0]


def values(targets: Tensor = REAL, batch_size: int = 16, **changed: Any) -> dict[str, float]:
    """The validation of the first column on these targets."""
    loader = DataLoader(TensorDataset(INPUTS, targets), batch_size=batch_size)
    parts = {"model": First, "loss": lambda outputs, targets: (outputs - targets).square().mean(), **changed}
    task = small_task(val_loader=loader, **parts)
    return validate(task, First(), loader, CPU, part="val", seed=0)


def rmse(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean().sqrt()


def auc(outputs: Tensor, targets: Tensor) -> float:
    return float(roc_auc_score(targets.numpy(), outputs.numpy()))


def strict_auc(outputs: Tensor, targets: Tensor) -> float:
    """As scikit-learn's was: it raises where there is one class only."""
    if int(targets.min()) == int(targets.max()):
        raise ValueError("Only one class present in y_true.")
    return auc(outputs, targets)


def precision(outputs: Tensor, targets: Tensor) -> float:
    found = outputs > 1.0
    return int((found & (targets == 1)).sum()) / int(found.sum())


OF_ALL = {
    "auc": (lrsearch.whole(strict_auc), LABELS, auc(SCORES, LABELS)),
    "auc of torchmetrics": (torchmetrics.AUROC(task="binary"), LABELS, auc(SCORES, LABELS)),
    "rmse": (lrsearch.whole(rmse), REAL, float(rmse(SCORES, REAL))),
    "rmse of torchmetrics": (torchmetrics.MeanSquaredError(squared=False), REAL, float(rmse(SCORES, REAL))),
    "f1": (
        lrsearch.whole(lambda outputs, targets: f1_score(targets, outputs > 0)),
        LABELS,
        f1_score(LABELS, SCORES > 0),
    ),
}


@pytest.mark.parametrize("kind", OF_ALL)
def test_a_metric_of_the_whole_set_is_that_of_the_whole_set(kind: str) -> None:
    metric, targets, expected = OF_ALL[kind]
    found = values(targets, metrics={"it": metric})["val/it"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_plain_function_is_a_mean_over_batches_by_their_targets() -> None:
    parts = [slice(0, 16), slice(16, 32), slice(32, 48), slice(48, 60)]
    expected = sum(float(rmse(SCORES[p], REAL[p])) * len(REAL[p]) for p in parts) / 60
    assert values(metrics={"rmse": rmse})["val/rmse"] == pytest.approx(expected, rel=1e-5)


def test_an_object_of_the_users_stays_as_it_was() -> None:
    metric = torchmetrics.MeanSquaredError()
    metric.update(torch.zeros(2), torch.ones(2))
    before = copy.deepcopy(metric.metric_state)
    first, second = (values(metrics={"mse": metric}) for _ in range(2))
    assert first == second
    assert first["val/mse"] == pytest.approx(first["val/loss"])
    assert metric.metric_state == before


class Structured(nn.Module):
    """Outputs in a dict, a tuple and a list."""

    def forward(self, inputs: Tensor) -> dict[str, Any]:
        texts = [f"{value:.3f}" for value in inputs[:, 2]]
        return {"a": inputs[:, 0], "rest": (inputs[:, 1], texts), "two": [inputs[:, 2:], inputs.mean()]}


def test_outputs_of_any_structure_are_joined() -> None:
    seen: list[Any] = []

    def keep(outputs: Any, targets: Any) -> float:
        seen.append((outputs, targets))
        return 0.0

    loader = DataLoader(TensorDataset(INPUTS, REAL), batch_size=16)
    task = small_task(loss=lambda outputs, targets: outputs["a"].mean(), metrics={"k": lrsearch.whole(keep)})
    validate(task, Structured(), loader, CPU, part="val", seed=0)
    ((outputs, targets),) = seen
    assert torch.equal(targets, REAL)
    assert torch.equal(outputs["a"], SCORES)
    assert torch.equal(outputs["rest"][0], INPUTS[:, 1])
    assert outputs["rest"][1] == [f"{value:.3f}" for value in INPUTS[:, 2]]
    assert torch.equal(outputs["two"][0], INPUTS[:, 2:])


def test_a_loader_may_use_its_memory_again() -> None:
    class Reusing:
        def __iter__(self) -> Any:
            inputs, targets = torch.empty(15, 4), torch.empty(15)
            for k in range(4):
                inputs.copy_(INPUTS[15 * k : 15 * k + 15])
                targets.copy_(REAL[15 * k : 15 * k + 15])
                yield inputs, targets

    task = small_task(loss=nn.MSELoss(), metrics={"rmse": lrsearch.whole(rmse)})
    found = validate(task, First(), Reusing(), CPU, part="val", seed=0)
    assert found["val/rmse"] == pytest.approx(float(rmse(SCORES, REAL)))


@pytest.mark.filterwarnings("ignore:Only one class is present:Warning")
@pytest.mark.parametrize("metric", [strict_auc, auc, precision], ids=["raises", "NaN", "divides by zero"])
def test_a_metric_costs_the_batches_on_which_it_cannot_be_computed(metric: Callable[..., float]) -> None:
    with pytest.warns(UserWarning, match=r"metrics\['it'\] leaves out the batches .*lrsearch.whole"):
        found = values(LABELS, batch_size=6, metrics={"it": metric})
    expected = []
    with warnings.catch_warnings(action="ignore"):
        for k in range(0, 60, 6):
            try:
                expected.append(metric(SCORES[k : k + 6], LABELS[k : k + 6]))
            except (ValueError, ZeroDivisionError):
                continue
    left = [value for value in expected if not np.isnan(value)]
    assert 0 < len(left) < 10
    assert found["val/it"] == pytest.approx(np.mean(left))


def test_a_metric_that_no_batch_gives_is_a_failed_trial_with_the_reason() -> None:
    task = small_task(metrics={"auc": lambda outputs, targets: strict_auc(outputs, targets * 0)})
    result, _ = run(task, make_spec(steps=2))
    assert result.status == "failed"
    assert "metrics['auc'] cannot be computed on any batch (ValueError: Only one class" in str(result.error)


@pytest.mark.parametrize("metric", [lrsearch.whole(strict_auc), torchmetrics.MeanSquaredError()])
def test_a_metric_that_the_whole_set_does_not_give_says_why(metric: Any) -> None:
    with pytest.raises(MetricError, match=r"metrics\['it'\] cannot be computed .*\((Value|Runtime)Error: "):
        values(torch.zeros(60, 3), metrics={"it": metric}, loss=lambda outputs, targets: outputs.mean())


def test_memory_that_runs_out_in_a_metric_is_no_matter_of_the_batch() -> None:
    def full(outputs: Tensor, targets: Tensor) -> float:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        values(metrics={"it": full})


def test_a_trial_validates_by_the_whole_set_at_every_epoch() -> None:
    whole, _ = run(small_task(metrics={"a": lrsearch.whole(of_all)}), make_spec(steps=16))
    assert whole.metrics["val/a"].count == 3
    object_, _ = run(
        small_task(metrics={"a": torchmetrics.Accuracy(task="multiclass", num_classes=2)}),
        make_spec(steps=16),
    )
    plain, _ = run(small_task(), make_spec(steps=16))
    final = plain.metrics["val/accuracy"].final
    assert whole.metrics["val/a"].final == object_.metrics["val/a"].final == pytest.approx(final)


def of_all(outputs: Tensor, targets: Tensor) -> Tensor:
    assert outputs.shape == (64, 2)
    return (outputs.argmax(1) == targets).float().mean()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: lrsearch.whole(3), "whole=3: is not callable"),  # type: ignore[arg-type]
        (lambda: small_task(metrics={"mse": torchmetrics.MeanSquaredError}), "is a class; make an object"),
    ],
)
def test_what_is_no_metric_is_refused(make: Callable[[], Task], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()
