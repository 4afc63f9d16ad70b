"""The one training loop, where it differs from a loop anyone would write."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lrsearch.errors import InputError
from lrsearch.schedules import Constant, Plateau, Step, Sweep
from lrsearch.training.loop import Outcome, Validated, fit
from lrsearch.training.update import Training
from tests.training.tasks import SAM

INPUTS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
BATCHES = [(INPUTS, INPUTS[:, :2].argmax(1))] * 2
LOSS = nn.CrossEntropyLoss()


def training(model: nn.Module | None = None, **changed: Any) -> Training:
    model = model or nn.Linear(4, 2)
    optimizer = changed.pop("optimizer", None) or torch.optim.SGD(model.parameters(), lr=0.1)
    return Training(model, optimizer, BATCHES, **{"loss": LOSS, **changed})


def sweep(trained: Training, steps: int = 12, stop_at: int | None = None) -> tuple[Outcome, list[int]]:
    observed: list[int] = []

    def observe(step: int, lr: float, loss: float) -> str | None:
        observed.append(step)
        return "enough" if step == stop_at else None

    return fit(trained, Sweep(min_lr=1e-3, max_lr=1e-1), steps, observe), observed


def test_every_step_is_observed_once() -> None:
    assert sweep(training()) == (Outcome(12), list(range(1, 13)))


def test_the_observer_ends_it_with_its_reason() -> None:
    assert sweep(training(), stop_at=5) == (Outcome(5, stopped_at=5, reason="enough"), [1, 2, 3, 4, 5])


@pytest.mark.parametrize("bad_at", [2, 7, 12])
def test_a_loss_that_is_not_finite_is_not_observed(bad_at: int) -> None:
    calls = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        found: Tensor = LOSS(outputs, targets)
        return found * math.nan if calls == bad_at else found

    outcome, observed = sweep(training(loss=loss))
    assert outcome == Outcome(bad_at - 1, stopped_at=bad_at, reason="not_finite")
    assert observed == list(range(1, bad_at))


class Overflowing(torch.autograd.Function):
    """A gradient that float16 cannot hold until the scale has come down."""

    largest = 1e3

    @staticmethod
    def forward(context: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient if gradient.abs() < Overflowing.largest else gradient * math.inf


def test_an_update_that_the_scaler_skips_is_no_step() -> None:
    """The scale starts at 2**16 and is halved until it is below 1e3, seven skips: the lr waits meanwhile."""
    drawn = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal drawn
        drawn += 1
        scaled: Tensor = Overflowing.apply(LOSS(outputs.float(), targets))  # type: ignore[no-untyped-call]
        return scaled

    outcome, observed = sweep(training(loss=loss, precision="16"))
    assert (outcome.steps, observed) == (12, list(range(1, 13)))
    assert drawn == 12 + 7


def test_the_facts_are_those_of_the_first_group() -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.02)
    facts = training(model, optimizer=optimizer).model_info()
    expected = {"model": "Linear", "parameters": 10, "optimizer": "AdamW", "weight_decay": 0.02}
    assert facts.items() >= expected.items()
    assert (facts["device"], facts["decoupled_weight_decay"]) == ("cpu", True)


class OfOnesOwn(torch.optim.Optimizer):
    """Plain descent by an optimizer with settings that torch's own do not have."""

    def __init__(self, parameters: Any, **defaults: Any) -> None:
        super().__init__(parameters, {"lr": 0.1, **defaults})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= group["lr"] * p.grad


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"betas": [0.9, 0.99]}, {"betas": "(0.9, 0.99)"}),
        ({"betas": (torch.tensor(0.5), None)}, {"betas": "(0.5, None)"}),
        ({"betas": 0.9, "momentum": "nesterov", "weight_decay": {"decay": 1}}, {}),
        ({"momentum": None, "weight_decay": None}, {}),
        ({"momentum": torch.tensor([0.5]), "weight_decay": torch.zeros(2)}, {"momentum": 0.5}),
    ],
)
def test_settings_that_are_no_numbers_are_left_out_of_the_facts(
    settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    model = nn.Linear(4, 2)
    trained = training(model, optimizer=OfOnesOwn(model.parameters(), **settings))
    facts = trained.model_info()
    assert {name: facts[name] for name in ("betas", "momentum", "weight_decay") if name in facts} == expected
    assert json.loads(json.dumps(facts)) == facts
    assert sweep(trained)[0] == Outcome(12)


def sam_by_hand(steps: int) -> list[float]:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = SAM(model.parameters(), lr=0.1)
    losses = []
    for step in range(steps):
        inputs, targets = BATCHES[step % 2]

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = LOSS(model(inputs), targets)  # noqa: B023
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        losses.append(closure().item())
        optimizer.step(closure)
    return losses


class SAMWithoutAsking(SAM):
    """It does not look whether there is a closure before it calls it."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.enable_grad():
            closure()
        super().step(closure)


class SAMThatClimbsFirst(SAM):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            p.add_(0.1)
        closure()


@pytest.mark.parametrize("kind", [SAM, SAMWithoutAsking])
def test_an_optimizer_that_needs_the_closure_it_calls_optional_is_handed_it(kind: Any) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    losses: list[float] = []

    def observe(step: int, lr: float, loss: float) -> None:
        losses.append(loss)

    fit(training(model, optimizer=kind(model.parameters(), 0.1)), Constant(), 12, observe)
    assert losses == sam_by_hand(12)


def test_one_that_changes_the_weights_before_it_misses_its_closure_is_refused() -> None:
    model = nn.Linear(4, 2)
    with pytest.raises(InputError, match=r"had changed the weights when it missed its closure"):
        sweep(training(model, optimizer=SAMThatClimbsFirst(model.parameters(), 0.1)))


def test_no_scaler_follows_an_optimizer_with_a_closure() -> None:
    model = nn.Linear(4, 2)
    optimizer = SAM(model.parameters(), 0.1)
    with pytest.raises(InputError, match="precision='16': no GradScaler follows SAM"):
        sweep(training(model, optimizer=optimizer, precision="16"))


def test_gradients_of_one_step_do_not_reach_the_next() -> None:
    """Two equal batches at lr 0+: the gradient norm stays as it was, and does not grow."""
    norms: list[float] = []

    class Watching(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            norms.append(float(sum(p.grad.square().sum() for p in self.param_groups[0]["params"])))
            return super().step(closure)

    model = nn.Linear(4, 2)
    fit(
        training(model, optimizer=Watching(model.parameters(), lr=1e-11)),
        Sweep(min_lr=1e-12, max_lr=1e-11),
        10,
        lambda *_: None,
    )
    assert norms == pytest.approx([norms[0]] * 10, rel=1e-4)


@pytest.mark.parametrize(
    ("steps", "epoch", "expected"),
    [(12, 5, [5, 10, 12]), (10, 5, [5, 10]), (4, 5, [4]), (3, 1, [1, 2, 3]), (7, None, [7])],
)
def test_epochs_end_after_their_steps_and_with_the_last_one(
    steps: int, epoch: int | None, expected: list[int]
) -> None:
    heard: list[str] = []

    def observe(step: int, lr: float, loss: float) -> None:
        heard.append(f"step {step}")

    def at_epoch_end(step: int) -> Validated:
        heard.append(f"end {step}")
        return Validated()

    fit(training(), Constant(), steps, observe, steps_per_epoch=epoch, at_epoch_end=at_epoch_end)
    ends = [item for item in heard if item.startswith("end")]
    assert ends == [f"end {step}" for step in expected]
    assert all(heard[heard.index(f"end {step}") - 1] == f"step {step}" for step in expected)


def test_a_training_that_is_stopped_ends_no_epoch() -> None:
    ended: list[int] = []

    def stop(step: int, lr: float, loss: float) -> str | None:
        return "enough" if step == 3 else None

    def at_epoch_end(step: int) -> Validated:
        ended.append(step)
        return Validated()

    fit(training(), Constant(), 12, stop, steps_per_epoch=3, at_epoch_end=at_epoch_end)
    assert ended == []


def test_a_validation_may_end_it() -> None:
    def at_epoch_end(step: int) -> Validated:
        return Validated(stop="hopeless" if step == 6 else None)

    outcome = fit(training(), Constant(), 12, lambda *_: None, steps_per_epoch=3, at_epoch_end=at_epoch_end)
    assert outcome == Outcome(6, stopped_at=6, reason="hopeless")


def test_the_schedule_knows_the_epochs() -> None:
    lrs: list[float] = []

    def observe(step: int, lr: float, loss: float) -> None:
        lrs.append(lr)

    schedule = Step()
    fit(training(), schedule, 12, observe, steps_per_epoch=5)
    assert lrs == pytest.approx(schedule.curve(0.1, 12, 5).tolist())


def test_a_plateau_is_told_what_the_epochs_end_gives() -> None:
    lrs: list[float] = []
    objectives = {2: 1.0, 4: 2.0, 6: None, 8: 0.5, 10: 0.4, 12: 0.4}

    def observe(step: int, lr: float, loss: float) -> None:
        lrs.append(lr)

    schedule = Plateau(factor=0.5, patience=0.01)

    def at_epoch_end(step: int) -> Validated:
        return Validated(objectives[step])

    fit(training(), schedule, 12, observe, steps_per_epoch=2, at_epoch_end=at_epoch_end)
    assert lrs == [0.1] * 4 + [0.05] * 8
