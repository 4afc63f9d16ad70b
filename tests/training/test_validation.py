"""Validation as tasks need it: with gradients, in train mode, by their own rows; it moves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader

from lrsearch.errors import InputError
from lrsearch.training.task import Task, follow
from lrsearch.training.validation import validate
from tests.training.fingerprints import Identity, bits
from tests.training.tasks import CPU, DATA, INPUTS, TARGETS, make_spec, run, small_task

POINTS = torch.linspace(0, 3, 40).reshape(-1, 1)


def validated(task: Task, model: nn.Module | None = None, loader: Any = None) -> float:
    loader = task.val_loader if loader is None else loader
    return validate(task, model or task.model(), loader, CPU, part="val", seed=0)["val/loss"]


# --- losses that need gradients, or train mode ------------------------------------------------------------


def residual(model: nn.Module, batch: Tensor) -> Any:
    """That of u' = -u with u(0) = 1."""
    x = batch.clone().requires_grad_()
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    return (slope + u).square().mean() + (model(torch.zeros(1, 1)) - 1).square().mean()


def physics(**changed: Any) -> Task:
    parts: dict[str, Any] = {
        "model": lambda: nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)),
        "loss": None,
        "metrics": {},
        "step": residual,
        "train_loader": [POINTS],
        "val_loader": [POINTS[:30], POINTS[30:]],
    }
    return small_task(**{**parts, **changed})


class Detector(nn.Module):
    """Losses in train mode, predictions in eval mode, and statistics that train mode moves."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))

    def forward(self, inputs: Tensor, targets: Tensor) -> Any:
        scores = self.net(inputs)
        if not self.training:
            return [{"scores": row} for row in scores]
        return {"classes": nn.functional.cross_entropy(scores, targets)}


def detected(model: nn.Module, batch: Any) -> Any:
    losses: dict[str, Tensor] = model(*batch)
    return sum(losses.values())


def in_train_mode(model: nn.Module, batch: Any) -> Any:
    model.train()
    loss = detected(model, batch)
    loss.backward()  # of no use here, and left behind
    return loss


def test_a_loss_that_needs_gradients_is_validated_by_a_val_step() -> None:
    result, heard = run(physics(val_step=residual), make_spec(lr=0.01, steps=60))
    assert result.status == "complete"
    losses = list(heard.column("val/loss").values())
    assert len(losses) == 61  # one batch an epoch
    assert losses[-1] < 0.5 * losses[0]


def test_a_model_that_gives_its_loss_in_train_mode_only_is_validated_by_a_val_step() -> None:
    task = small_task(model=Detector, loss=None, metrics={}, step=detected, val_step=in_train_mode)
    result, heard = run(task, make_spec(steps=32))
    assert result.status == "complete"
    losses = list(heard.column("val/loss").values())
    assert losses[-1] < losses[0]


def test_validation_moves_nothing_whatever_a_step_does() -> None:
    """Two trainings that differ in how often they are validated are the same."""
    step: dict[str, Any] = {"model": Detector, "loss": None, "metrics": {}, "step": detected}
    validating, heard = run(small_task(**step, val_step=in_train_mode), make_spec(steps=24))
    alone, heard_alone = run(small_task(**step, val_loader=None), make_spec(steps=24), "train/loss")
    assert validating.status == alone.status == "complete"
    assert heard.column("train/loss") == heard_alone.column("train/loss")


@pytest.mark.parametrize("argument", ["step", "val_step"])
def test_modes_buffers_and_gradients_are_as_before(argument: str) -> None:
    model = Detector()
    model.net[1].eval()
    model(INPUTS, TARGETS)["classes"].backward()
    model.net[0].bias.grad = None

    def state() -> list[Any]:
        tensors = [*model.parameters(), *model.buffers()]
        gradients = [p.grad for p in model.parameters()]
        return [
            [(Identity(tensor), bits(tensor)) for tensor in tensors],
            [None if grad is None else (Identity(grad), bits(grad)) for grad in gradients],
            [module.training for module in model.modules()],
        ]

    def step(model: nn.Module, batch: Any) -> Any:
        with torch.enable_grad():
            return in_train_mode(model, batch)

    before = state()
    validated(small_task(model=Detector, loss=None, metrics={}, **{"step": detected, argument: step}), model)
    assert state() == before


def test_a_val_step_finds_the_model_in_eval_mode_at_every_batch() -> None:
    modes = []

    def val_step(model: nn.Module, batch: Any) -> Tensor:
        modes.append(model.training)
        model.train()
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    validated(small_task(metrics={}, val_step=val_step))
    assert modes == [False, False]


def model_makes_it(**changed: Any) -> Task:
    """The model returns its loss itself, but for eval mode."""

    class Own(nn.Linear):
        def forward(self, batch: Any) -> Any:
            outputs = super().forward(batch[0])
            return outputs.mean() if self.training else {"outputs": outputs}

    return small_task(model=lambda: Own(4, 2), loss=None, metrics={}, **changed)


def derivative(outputs: Tensor, targets: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(outputs.sum(), outputs)
    return slope.sum()


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (physics(), "validation needs gradients"),
        (small_task(metrics={}, loss=derivative), "validation needs gradients"),
        (model_makes_it(), r"in eval mode the model gives no loss \(but a dict\)"),
    ],
    ids=["a step with derivatives", "a loss with derivatives", "no loss in eval mode"],
)
def test_where_a_val_step_is_needed_it_is_named_in_one_line(task: Task, said: str) -> None:
    with pytest.raises(InputError, match=f"val_step=None: is missing, and {said}") as caught:
        validated(task)
    assert "\n" not in str(caught.value)
    assert "Task(val_step=…)" in caught.value.mend


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"val_step": 3}, "val_step=3: is not callable"),
        ({"rows": 3}, "rows=3: is not callable"),
        ({"val_step": residual}, "need the outputs .* neither step nor val_step"),
    ],
)
def test_a_val_step_that_cannot_be_used_is_refused_with_the_task(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        small_task(**changed)


# --- the weight of a batch --------------------------------------------------------------------------------


def mean_of(outputs: Tensor, targets: Tensor) -> Tensor:
    return targets.float().mean()


class Same(nn.Module):
    def forward(self, inputs: Any) -> Any:
        return inputs


def test_time_major_batches_weigh_as_much_as_they_have_rows() -> None:
    values = torch.arange(5.0)
    loader = [(torch.ones(9, 4, 2), values[:4]), (torch.ones(9, 1, 2), values[4:])]
    assert validated(small_task(loss=mean_of, metrics={}), Same(), loader) == pytest.approx(2.0)


def test_tokens_count_and_ignored_labels_do_not() -> None:
    logits = torch.randn(3, 7, 6)
    targets = torch.randint(7, (3, 6))
    targets[1:, 2:] = -100
    whole = nn.functional.cross_entropy(logits, targets)
    loader = [(logits[:1], targets[:1]), (logits[1:, :, :4], targets[1:, :4])]
    assert validated(small_task(loss=nn.CrossEntropyLoss(), metrics={}), Same(), loader) == pytest.approx(
        whole.item()
    )


def test_a_batch_without_a_label_costs_nothing_and_the_losss_own_ignored_label_is_read() -> None:
    logits = torch.randn(4, 3)
    targets = torch.tensor([0, 2, 255, 255])
    loss = nn.CrossEntropyLoss(ignore_index=255)
    loader = [(logits[:1], targets[:1]), (logits[1:3], targets[1:3]), (logits[3:], targets[3:])]
    task = small_task(loss=loss, metrics={})
    assert validated(task, Same(), loader) == pytest.approx(loss(logits, targets).item())


def test_packed_sequences_weigh_as_much_as_they_have_elements() -> None:
    rows = [torch.arange(4.0), torch.arange(2.0), torch.full((3,), 10.0)]

    def loss(outputs: PackedSequence, targets: PackedSequence) -> Tensor:
        return targets.data.mean()

    loader = [(packed, packed) for packed in (pack_sequence(rows[:2]), pack_sequence(rows[2:]))]
    expected = torch.cat(rows).mean().item()
    assert validated(small_task(loss=loss, metrics={}), Same(), loader) == pytest.approx(expected)


def test_rows_of_the_users_own_decide() -> None:
    loader = [(torch.ones(3), torch.tensor([1.0])), (torch.ones(1), torch.tensor([5.0]))]
    task = small_task(loss=mean_of, metrics={"mean": mean_of}, rows=lambda batch: len(batch[0]))
    found = validate(task, Same(), loader, CPU, part="val", seed=0)
    assert found == {"val/loss": 2.0, "val/mean": 2.0}


@pytest.mark.parametrize("rows", [None, "three", -1, float("nan")])
def test_rows_that_are_no_number_are_named(rows: Any) -> None:
    with pytest.raises(InputError, match=r"Task.rows=.*no number"):
        validated(small_task(rows=lambda batch: rows))


# --- the device -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [lambda: nn.CrossEntropyLoss(weight=torch.ones(2)), lambda: nn.Linear(2, 2)],
    ids=["a buffer", "parameters"],
)
def test_a_loss_with_weights_goes_where_the_model_goes_and_comes_back(make: Callable[[], nn.Module]) -> None:
    loss = make()
    before = [(Identity(tensor), bits(tensor)) for tensor in (*loss.parameters(), *loss.buffers())]
    task = small_task(loss=loss)
    with task.preserve():
        task.build(0.1, torch.device("meta"))
        assert {tensor.device.type for tensor in (*loss.parameters(), *loss.buffers())} == {"meta"}
    assert [(Identity(tensor), bits(tensor)) for tensor in (*loss.parameters(), *loss.buffers())] == before


def test_a_loss_beside_a_model_in_use_follows_it_from_the_cpu_only() -> None:
    """One that lies on an accelerator was put there: the model's outputs may come out on another device."""
    loss = nn.CrossEntropyLoss(weight=torch.ones(2))
    follow(loss, torch.device("meta"))
    assert next(loss.buffers()).device.type == "meta"
    follow(loss, CPU)
    assert next(loss.buffers()).device.type == "meta"


def test_a_validation_loader_with_epochs_is_the_same_each_time_and_put_back() -> None:
    class Part:
        """Its rows depend on the epoch."""

        epoch = 7

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __iter__(self) -> Any:
            return iter(list(DataLoader(DATA, batch_size=8))[self.epoch % 8 :])

    loader = Part()
    task = small_task(val_loader=loader)
    model = task.model()
    first = validate(task, model, loader, CPU, part="val", seed=3)
    assert validate(task, model, loader, CPU, part="val", seed=3) == first
    assert validate(task, model, loader, CPU, part="val", seed=4) != first
    assert loader.epoch == 7
