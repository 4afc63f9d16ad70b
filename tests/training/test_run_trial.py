"""A task's trial: the same each time, validated, watched for divergence, and how each of its ends is told."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from schedulefree import SGDScheduleFree
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lrsearch.core.trial import TrialResult
from lrsearch.errors import InputError, RecordError
from lrsearch.examples import digits
from lrsearch.schedules import schedule_from_dict
from lrsearch.training.random_state import seed_everything
from lrsearch.training.run_trial import check_repeatable, evaluate
from lrsearch.training.task import steps_per_epoch
from tests.training.tasks import CPU, DATA, EPOCH, INPUTS, TARGETS, accuracy, make_spec, run, sgd, small_task


def same_training(one: TrialResult, other: TrialResult) -> bool:
    return {**asdict(one), "seconds": 0} == {**asdict(other), "seconds": 0}


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Rows without a length."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(DATA)


class Counting(nn.CrossEntropyLoss):
    """A loss that changes with every batch that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.seen += 1
        return super().forward(outputs, targets) * (1 + self.seen / 100)


REPEATED: dict[str, Callable[[], Any]] = {
    "digits": digits.task,
    "digits with batch normalisation": lambda: digits.task(batch_norm=True),
    "dropout": lambda: small_task(model=lambda: nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 2))),
    "a loader with a generator of its own": lambda: small_task(
        train_loader=DataLoader(DATA, batch_size=8, shuffle=True, generator=torch.Generator())
    ),
    "a shuffled validation": lambda: small_task(val_loader=DataLoader(DATA, batch_size=48, shuffle=True)),
    "a loss with a state": lambda: small_task(loss=Counting()),
}


@pytest.mark.parametrize("kind", REPEATED)
def test_the_same_seed_gives_the_same_numbers_bit_for_bit(kind: str) -> None:
    task = REPEATED[kind]()
    spec = make_spec(steps=100, name="cosine", seed=3)
    first, heard = run(task, spec)
    torch.rand(3)
    again, heard_again = run(task, spec)
    assert first.status == "complete"
    assert same_training(first, again)
    assert heard.points == heard_again.points


def test_another_seed_gives_other_weights_and_another_order() -> None:
    one, other = (run(digits.task(), make_spec(steps=20, seed=seed))[1] for seed in (0, 1))
    assert one.column("val/loss")[0] != other.column("val/loss")[0]
    assert one.column("train/loss")[20] != other.column("train/loss")[20]


def test_validation_comes_before_the_first_update_at_epoch_ends_and_at_the_last_step() -> None:
    _, heard = run(small_task(), make_spec(steps=20))
    assert heard.column("epoch") == {0: 0.0, 8: 1.0, 16: 2.0, 20: 2.5}
    assert heard.column("val/loss").keys() == heard.column("val/accuracy").keys() == {0, 8, 16, 20}
    assert list(heard.column("train/loss")) == list(range(1, 21))


def test_an_epoch_that_ends_with_the_training_is_validated_once() -> None:
    _, heard = run(small_task(), make_spec(steps=16))
    assert [step for step, metrics in heard.points if "val/loss" in metrics] == [0, 8, 16]


def test_without_a_known_epoch_validation_comes_first_and_last() -> None:
    task = small_task(train_loader=DataLoader(Stream(), batch_size=8))
    assert steps_per_epoch(task) is None
    _, heard = run(task)
    assert list(heard.column("val/loss")) == [0, 20]
    assert not heard.column("epoch")


def test_the_first_validation_is_that_of_the_untrained_model() -> None:
    result, _ = run(small_task(), make_spec(seed=5))
    seed_everything(5)
    model = nn.Linear(4, 2)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(INPUTS), TARGETS)
    assert result.metrics["val/loss"].first == pytest.approx(loss.item(), rel=1e-6)
    assert result.metrics["val/loss"].final < result.metrics["val/loss"].first
    assert result.metrics["val/accuracy"].high > 0.9


def test_validation_does_not_change_the_training() -> None:
    model = REPEATED["dropout"]().model
    with_it = run(small_task(model=model))[1]
    without = run(small_task(model=model, val_loader=None), objective="train/loss")[1]
    assert with_it.column("train/loss") == without.column("train/loss")


def test_the_initial_loss_is_that_of_the_first_update() -> None:
    result, heard = run(small_task())
    assert result.initial_loss == heard.column("train/loss")[1] == result.metrics["train/loss"].first
    assert result.steps_done == 20


def test_the_result_is_plain_json_and_comes_back() -> None:
    result, _ = run(small_task())
    assert TrialResult.from_dict(result.to_dict()) == result


def test_records_are_thinned_but_for_validation_and_the_last_step() -> None:
    _, heard = run(small_task(), make_spec(steps=20, log_every=6))
    assert list(heard.column("train/loss")) == [6, 12, 18, 20]
    assert list(heard.column("val/loss")) == [0, 8, 16, 20]


def test_two_param_groups_keep_their_ratio_and_the_first_is_recorded() -> None:
    made: list[Optimizer] = []

    def optimizer(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
        weight, bias = parameters
        made.append(SGD([{"params": [weight], "lr": lr}, {"params": [bias], "lr": lr / 10}]))
        return made[0]

    _, heard = run(small_task(optimizer=optimizer), make_spec(lr=0.5, steps=20, name="linear"))
    np.testing.assert_allclose(list(heard.column("lr").values()), 0.5 * (1 - np.arange(20) / 20))
    groups = made[0].param_groups
    assert groups[1]["initial_lr"] == pytest.approx(groups[0]["initial_lr"] / 10)


@pytest.mark.parametrize("schedule", ["linear", "plateau", "warmup"])
@pytest.mark.parametrize("shares", [(0.01, 1.0), (1 / 64, 1 / 64), (1.0, 0.01)])
def test_the_lr_is_recorded_in_units_of_what_the_factory_was_given(
    shares: tuple[float, float], schedule: str
) -> None:
    def optimizer(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
        return SGD([{"params": [p], "lr": share * lr} for p, share in zip(parameters, shares, strict=True)])

    spec = make_spec(lr=0.5, steps=20, name=schedule)
    _, heard = run(small_task(optimizer=optimizer), spec)
    expected = schedule_from_dict(spec.schedule).curve(0.5, 20, EPOCH)
    np.testing.assert_allclose(list(heard.column("lr").values()), expected, rtol=1e-12)


def test_an_lr_held_in_a_tensor_is_recorded_as_it_was_given() -> None:
    def optimizer(parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
        return SGD(parameters, lr=torch.tensor(lr))

    _, heard = run(small_task(optimizer=optimizer), make_spec(lr=0.1, steps=20, name="cosine"))
    expected = schedule_from_dict({"name": "cosine"}).curve(0.1, 20)
    np.testing.assert_allclose(list(heard.column("lr").values()), expected, rtol=1e-5)


def by_hand(lr: float, steps: int = 20) -> tuple[list[float], dict[str, Tensor]]:
    """A schedule-free training as its authors would write it: the losses at the epochs' ends, the weights."""
    seed_everything(0)
    model = nn.Linear(4, 2)
    optimizer = SGDScheduleFree(model.parameters(), lr=lr)
    losses = []
    for step in range(steps + 1):
        if step % EPOCH == 0 or step == steps:
            optimizer.eval()
            with torch.no_grad():
                losses.append(nn.functional.cross_entropy(model(INPUTS), TARGETS).item())
        if step == steps:
            return losses, model.state_dict()
        optimizer.train()
        rows = slice(8 * (step % EPOCH), 8 * (step % EPOCH) + 8)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(INPUTS[rows]), TARGETS[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    raise AssertionError


def test_a_schedule_free_optimizer_is_validated_and_kept_as_in_a_loop_by_hand(tmp_path: Path) -> None:
    """Though the factory never calls train(); and so the lrs have the order that they have there."""
    task = small_task(
        optimizer=lambda parameters, lr: SGDScheduleFree(parameters, lr=lr),
        train_loader=[(INPUTS[k : k + 8], TARGETS[k : k + 8]) for k in range(0, 64, 8)],
        val_loader=[(INPUTS, TARGETS)],
        test_loader=[(INPUTS, TARGETS)],
    )
    ours, theirs = {}, {}
    for lr in (0.1, 1.0, 10.0, 100.0):
        path = tmp_path / f"{lr}.pt"
        result, heard = run(task, make_spec(lr=lr, steps=20), weights=path)
        losses, weights = by_hand(lr)
        assert list(heard.column("val/loss").values()) == losses
        kept = torch.load(path, weights_only=True)
        assert all(torch.equal(kept[name], weights[name]) for name in weights)
        assert evaluate(task, path, CPU)["test/loss"] == losses[-1]
        ours[lr], theirs[lr] = result.metrics["val/loss"].final, losses[-1]
    assert sorted(ours, key=ours.__getitem__) == sorted(theirs, key=theirs.__getitem__)


def test_a_plateau_hears_each_validation_after_it_never_before() -> None:
    schedule = {"name": "plateau", "factor": 0.5, "patience": 0.01}
    spec = make_spec(lr=0.08, steps=4 * EPOCH, schedule=schedule)
    _, heard = run(small_task(metrics={"still": lambda *_: 1.0}), spec, objective="val/still")
    lrs = heard.column("lr")
    # The first validation sets the mark, each further one is no better than it.
    assert [lrs[step] for step in range(1, 33)] == [0.08] * 16 + [0.04] * 8 + [0.02] * 8


def test_a_plateau_leaves_an_objective_that_improves_alone() -> None:
    schedule = {"name": "plateau", "factor": 0.5, "patience": 0.01}
    _, heard = run(small_task(), make_spec(lr=0.01, steps=4 * EPOCH, schedule=schedule))
    assert set(heard.column("lr").values()) == {0.01}


def regression_task(**changed: Any) -> Any:
    """Least squares, whose critical lr is 2 over the largest eigenvalue: here near 1."""
    data = TensorDataset(INPUTS, INPUTS.sum(1, keepdim=True))
    parts = {
        "model": lambda: nn.Linear(4, 1),
        "optimizer": lambda parameters, lr: SGD(parameters, lr=lr),
        "loss": nn.MSELoss(),
        "train_loader": DataLoader(data, batch_size=16, shuffle=True),
        "val_loader": DataLoader(data, batch_size=64),
        "metrics": {},
    }
    return small_task(**{**parts, **changed})


def test_an_overflow_ends_the_trial_as_diverged_not_finite() -> None:
    result, heard = run(regression_task(), make_spec(lr=1e6, steps=100))
    assert (result.status, result.cause, result.error) == ("diverged", "not_finite", None)
    assert 0 < result.steps_done < 100
    assert all(np.isfinite(value) for _, metrics in heard.points for value in metrics.values())


def test_a_rising_loss_ends_the_trial_as_diverged() -> None:
    result, _ = run(regression_task(), make_spec(lr=1.02, steps=400))
    assert (result.status, result.cause) == ("diverged", "loss_rose")
    assert 40 < result.steps_done <= 200  # half of it: until then the objective may still come round


@pytest.mark.parametrize("seed", range(3))
def test_digits_far_above_their_lr_diverge(seed: int) -> None:
    result, _ = run(digits.task(), make_spec(lr=30.0, steps=200, seed=seed))
    assert result.status == "diverged"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("batch_size", [4, 32])
def test_a_low_lr_is_no_divergence(batch_size: int, seed: int) -> None:
    result, _ = run(digits.task(batch_size=batch_size), make_spec(lr=1e-6, steps=200, seed=seed))
    assert (result.status, result.steps_done) == ("complete", 200)


def test_a_spike_that_recovers_is_no_divergence() -> None:
    calls = 0

    def step(model: nn.Module, batch: Any) -> Tensor:
        nonlocal calls
        calls += model.training
        return nn.functional.cross_entropy(model(batch[0]), batch[1]) + 100 * (60 < calls < 65)

    result, _ = run(small_task(step=step, metrics={}), make_spec(steps=200))
    assert result.status == "complete"
    assert result.metrics["train/loss"].high > 100


class UserError(Exception):
    pass


def failing(*_: Any) -> Any:
    raise UserError("the user's own fault")


class BadRows(TensorDataset):
    def __getitem__(self, index: int) -> Any:
        return failing() if index == 40 else (INPUTS[index], TARGETS[index])


class BadModel(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return failing() if len(inputs) == 16 else super().forward(inputs)


FAULTS: dict[str, dict[str, Any]] = {
    "loader": {"train_loader": DataLoader(BadRows(INPUTS, TARGETS), batch_size=8)},
    "model": {"model": lambda: BadModel(4, 2)},
    "model's factory": {"model": failing},
    "optimizer's factory": {"optimizer": failing},
    "metric": {"metrics": {"accuracy": failing}},
}


@pytest.mark.parametrize("where", FAULTS)
def test_what_the_users_code_raises_makes_a_failed_trial_with_its_traceback(
    where: str, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    result, _ = run(small_task(**FAULTS[where]), weights=tmp_path / "weights.pt")
    assert (result.status, result.cause) == ("failed", "UserError")
    assert result.error is not None
    assert "in failing\n" in result.error
    assert result.error.endswith("the user's own fault\n")
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(tmp_path.iterdir())


def takes_too_much() -> nn.Module:
    return nn.Linear(1 << 30, 1 << 30, bias=False)


def raises(error: Exception) -> Callable[[], nn.Module]:
    def model() -> nn.Module:
        raise error

    return model


@pytest.mark.parametrize(
    "model",
    [takes_too_much, raises(MemoryError()), raises(torch.OutOfMemoryError("CUDA out of memory"))],
    ids=["the CPU's allocator", "Python", "an accelerator"],
)
def test_out_of_memory_is_told_apart(model: Callable[[], nn.Module]) -> None:
    result, _ = run(small_task(model=model))
    assert (result.status, result.cause) == ("failed", "out_of_memory")


def test_an_objective_that_is_never_reported_is_a_failure_that_names_what_was() -> None:
    result, _ = run(small_task(), objective="val/f1")
    assert (result.status, result.cause, result.steps_done) == ("failed", "no_objective", 20)
    expected = "val/f1 is the objective and was never reported; reported: train/loss, val/loss, val/accuracy"
    assert result.error == expected


def test_an_objective_that_is_not_finite_at_the_end_is_a_divergence() -> None:
    task = small_task(metrics={"odd": lambda *_: float("nan")})
    result, heard = run(task, objective="val/odd")
    assert (result.status, result.cause) == ("diverged", "not_finite")
    assert not heard.column("val/odd")
    assert run(task, objective="val/loss")[0].status == "complete"


@pytest.mark.parametrize("value", [None, "high", torch.ones(2), [1.0]])
def test_a_metric_that_is_no_number_is_named(value: object) -> None:
    with pytest.raises(InputError, match=r"metrics\['odd'\]=.* is no number") as caught:
        run(small_task(metrics={"odd": lambda *_: value}))
    assert "\n" not in str(caught.value)


def generator_of_batches() -> Iterator[Any]:
    yield from DataLoader(DATA, batch_size=8)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train_loader": generator_of_batches()}, "train_loader=.*read once only"),
        ({"val_loader": generator_of_batches()}, "val_loader=.*read once only"),
        ({"val_loader": []}, "val_loader=.*yields no batch"),
        ({"val_loader": 3}, "val_loader=3: is not iterable"),
        ({"train_loader": []}, "train_loader=.*has no batch"),
    ],
    ids=["training generator", "validation generator", "no validation batch", "no loader", "no batch"],
)
def test_loaders_that_no_trial_can_use_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(small_task(**changed))


def test_the_weights_are_those_that_were_validated_last(tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights.pt"
    task = small_task(test_loader=DataLoader(DATA, batch_size=10))
    result, _ = run(task, weights=path)
    state = torch.load(path, weights_only=True)
    assert type(state) is dict
    loss = nn.functional.cross_entropy(INPUTS @ state["weight"].T + state["bias"], TARGETS)
    assert result.metrics["val/loss"].final == pytest.approx(loss.item(), rel=1e-5)
    before = torch.get_rng_state()
    found = evaluate(task, path, CPU)
    assert found == {
        "test/loss": pytest.approx(loss.item(), rel=1e-5),
        "test/accuracy": pytest.approx(result.metrics["val/accuracy"].final),
    }
    assert torch.equal(torch.get_rng_state(), before)
    assert [item.name for item in path.parent.iterdir()] == ["weights.pt"]


def test_a_trial_that_diverged_leaves_no_weights(tmp_path: Path) -> None:
    run(regression_task(), make_spec(lr=1e6), weights=tmp_path / "weights.pt")
    assert not list(tmp_path.iterdir())


def test_weights_that_cannot_be_written_are_an_error_of_the_record(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write the weights"):
        run(small_task(), weights=tmp_path / "file" / "weights.pt")


def test_damaged_or_foreign_weights_are_an_error_of_the_record(tmp_path: Path) -> None:
    task = small_task(test_loader=DataLoader(DATA, batch_size=10))
    path = tmp_path / "weights.pt"
    run(task, weights=path)
    with pytest.raises(RecordError, match="cannot read the weights"):
        evaluate(replace(task, model=lambda: nn.Linear(4, 3)), path, CPU)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RecordError, match="cannot read the weights"):
        evaluate(task, path, CPU)


def test_without_a_test_loader_there_is_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="test_loader"):
        evaluate(small_task(), tmp_path / "weights.pt", CPU)


def test_the_baseline_trains_with_adam() -> None:
    own, heard = run(small_task())
    adam, heard_adam = run(small_task(), make_spec(optimizer="adam"))
    assert (heard.model_info[0]["optimizer"], heard_adam.model_info[0]["optimizer"]) == ("SGD", "Adam")
    assert own.metrics["val/loss"].first == adam.metrics["val/loss"].first
    assert own.metrics["val/loss"].final != adam.metrics["val/loss"].final


def test_another_baseline_is_refused() -> None:
    with pytest.raises(InputError, match="optimizer='lion'"):
        run(small_task(), make_spec(optimizer="lion"))


class Interrupts(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [nn.Linear, BadModel, Interrupts])
def test_random_states_are_put_back_however_it_ends(kind: type[nn.Linear]) -> None:
    generator = torch.Generator().manual_seed(7)
    loader = DataLoader(DATA, batch_size=8, shuffle=True, generator=generator)
    states = random.getstate(), torch.get_rng_state(), generator.get_state()
    drawn = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    with pytest.raises(KeyboardInterrupt) if kind is Interrupts else nullcontext():
        run(small_task(model=lambda: kind(4, 2), train_loader=loader))
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert torch.equal(generator.get_state(), states[2])
    assert np.array_equal(np.random.get_state()[1], drawn)  # type: ignore[index]  # noqa: NPY002


def test_parts_in_eval_mode_stay_so_and_the_rest_trains() -> None:
    made: list[nn.Sequential] = []
    modes: list[tuple[bool, bool]] = []

    def model() -> nn.Module:
        made.append(nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
        made[0][0].eval()
        return made[0]

    def watched(outputs: Tensor, targets: Tensor) -> Tensor:
        modes.append((made[0][0].training, made[0][1].training))
        return nn.functional.cross_entropy(outputs, targets)

    run(small_task(model=model, loss=watched))
    assert {mode for mode in modes if mode[1]} == {(False, True)}
    assert modes.count((False, True)) == 20
    assert modes.count((False, False)) == 2 * 4
    assert int(made[0][0].num_batches_tracked) == 0  # type: ignore[arg-type]
    assert int(made[0][1].num_batches_tracked) == 20  # type: ignore[arg-type]


def test_a_model_that_comes_in_eval_mode_is_trained_all_the_same() -> None:
    result, _ = run(small_task(model=lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()))
    other, _ = run(small_task(model=lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))))
    assert same_training(result, other)


def test_a_task_that_makes_the_same_model_of_a_seed_is_repeatable() -> None:
    before = torch.get_rng_state()
    check_repeatable(digits.task(), 3, CPU)
    assert torch.equal(torch.get_rng_state(), before)


UNSEEDED = torch.Generator().manual_seed(0)


def drawn_from_elsewhere() -> nn.Module:
    model = nn.Linear(4, 2)
    nn.init.normal_(model.bias, generator=UNSEEDED)
    return model


class OtherBuffer(nn.Linear):
    """Its buffer, of a kind that cannot be compared as it is, has another value in each model."""

    def __init__(self, make: Callable[[float], Tensor]) -> None:
        super().__init__(4, 2)
        self.register_buffer("graph", make(float(next(WIDTHS))))


BUFFERS: dict[str, Callable[[float], Tensor]] = {
    "sparse": lambda value: (torch.eye(3) * value).to_sparse(),
    "compressed": lambda value: (torch.eye(3) * value).to_sparse_csr(),
    "complex": lambda value: torch.tensor([1.0, complex(0, value)]),
    "quantized": lambda value: torch.quantize_per_tensor(torch.ones(3), value, 0, torch.qint8),
    "by channel": lambda value: torch.quantize_per_channel(
        torch.ones(2, 2), torch.tensor([0.1, value]), torch.zeros(2), 0, torch.qint8
    ),
    "nested": lambda value: torch.nested.nested_tensor([torch.ones(2), torch.tensor([value])]),
    "jagged": lambda value: torch.nested.nested_tensor(
        [torch.ones(2), torch.tensor([value])], layout=torch.jagged
    ),
}


@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per:UserWarning")
def test_buffers_of_every_kind_are_compared(kind: str) -> None:
    make = BUFFERS[kind]
    check_repeatable(small_task(model=lambda: OtherBuffer(lambda _: make(3.0))), 0, CPU)
    with pytest.raises(InputError, match="'graph' differs"):
        check_repeatable(small_task(model=lambda: OtherBuffer(make)), 0, CPU)


ONE = nn.Linear(4, 2)
WIDTHS = iter(range(2, 100))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (drawn_from_elsewhere, "'bias' differs"),
        (lambda: nn.Linear(4, next(WIDTHS)), "'weight' differs"),
        (lambda: ONE, "the weights that were trained before"),
        (lambda: nn.Sequential(ONE, nn.Linear(2, 2)), "the weights that were trained before"),
    ],
    ids=["own generator", "own shape", "one model", "shared part"],
)
def test_a_task_that_makes_another_model_each_time_is_found(
    model: Callable[[], nn.Module], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        check_repeatable(small_task(model=model), 0, CPU)


def test_shared_parts_that_are_not_trained_are_no_fault() -> None:
    frozen = nn.Linear(4, 4).requires_grad_(False)
    check_repeatable(small_task(model=lambda: nn.Sequential(frozen, nn.Linear(4, 2))), 0, CPU)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"step": lambda model, batch: model(batch).sum()}, "need the outputs and the targets"),
        ({"loss": None}, "need the outputs and the targets"),
        ({"metrics": {"f1": 3}}, r"metrics\['f1'\]=3: is not callable"),
        ({"metrics": {"loss": accuracy}}, "choose another name"),
    ],
)
def test_metrics_that_cannot_be_computed_are_refused_with_the_task(
    changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        small_task(**changed)


def test_a_step_of_the_users_gives_the_validation_loss() -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    stepped, _ = run(small_task(step=step, loss=None, metrics={}))
    plain, _ = run(small_task(metrics={}, optimizer=sgd))
    assert same_training(stepped, plain)
