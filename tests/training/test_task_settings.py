"""What a Task says of its training: when it is validated, whose weights are judged, what is compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import register_backend
from torch._dynamo.utils import counters

import lrsearch
from lrsearch.core.sweep_plan import SweepPlan
from lrsearch.errors import InputError
from lrsearch.training.precision import in_full
from lrsearch.training.random_state import seed_everything
from lrsearch.training.run_trial import run_trial
from lrsearch.training.subjects import FromTask
from lrsearch.training.task import steps_per_epoch
from tests.training.tasks import CPU, INPUTS, TARGETS, Listener, make_spec, run, small_task


def test_an_epoch_is_counted_in_whole_updates() -> None:
    assert [steps_per_epoch(small_task(accumulate=n)) for n in (1, 2, 3, 8, 9)] == [8, 4, 2, 1, 1]


def test_validation_comes_every_so_many_updates_and_after_the_last() -> None:
    _, heard = run(small_task(val_every=6))
    assert [*heard.column("val/loss")] == [0, 6, 12, 18, 20]
    assert heard.column("epoch")[6] == 0.75
    assert heard.model_info[0]["val_every"] == 6


def test_a_metric_is_given_full_precision_and_the_model_runs_in_half() -> None:
    seen: dict[str, set[torch.dtype]] = {"loss": set(), "metric": set()}

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen["loss"].add(outputs.dtype)
        return nn.functional.cross_entropy(outputs, targets)

    def metric(outputs: Tensor, targets: Tensor) -> float:
        seen["metric"].add(outputs.dtype)
        return float(outputs.numpy().mean())  # NumPy has no bfloat16

    run(small_task(precision="bf16", loss=loss, metrics={"mean": metric}))
    assert seen == {"loss": {torch.bfloat16}, "metric": {torch.float32}}


def test_outputs_of_any_make_come_to_full_precision() -> None:
    half, whole = torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.int64)
    found = in_full({"a": half, "b": (whole, [half.to(torch.float16)]), "c": "text"})
    assert found["a"].dtype == found["b"][1][0].dtype == torch.float32
    assert found["b"][0] is whole
    assert found["c"] == "text"


def test_the_averaged_weights_are_validated_and_kept(tmp_path: Path) -> None:
    """As a plain loop averages them: the first update's weights, then nine tenths of what there was."""
    weights = tmp_path / "weights.pt"
    listener, task = Listener(), small_task(ema=0.9, train_loader=[(INPUTS, TARGETS)])
    run_trial(task, make_spec(steps=5), CPU, listener, objective="val/loss", weights=weights)
    seed_everything(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    averaged = [p.detach().clone() for p in model.parameters()]
    for step in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(INPUTS), TARGETS).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        kept = 0.9 if step else 0.0
        averaged = [
            kept * a + (1 - kept) * p.detach() for a, p in zip(averaged, model.parameters(), strict=True)
        ]
        with torch.no_grad():
            loss = nn.functional.cross_entropy(nn.functional.linear(INPUTS, *averaged), TARGETS)
        assert listener.column("val/loss")[step + 1] == pytest.approx(loss.item(), rel=1e-5)
    for found, expected in zip(torch.load(weights).values(), averaged, strict=True):
        torch.testing.assert_close(found, expected)


def test_averaging_does_not_change_what_is_trained() -> None:
    losses = [run(small_task(ema=ema))[1].column("train/loss") for ema in (None, 0.9)]
    assert losses[0] == losses[1]


class Uncopied(nn.Linear):
    """A model that does not let itself be copied."""

    def __deepcopy__(self, memo: Any) -> Uncopied:
        raise RuntimeError("there is only one of me")


def test_a_model_that_cannot_be_copied_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(InputError, match=r"ema=0\.9: the model cannot be copied \(RuntimeError: there is"):
        FromTask(small_task(model=lambda: Uncopied(4, 2), ema=0.9)).check(SweepPlan(), CPU)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler warns of torch's own parts
def test_a_compiled_model_trains_the_same_under_its_own_name(tmp_path: Path) -> None:
    def trained(**said: Any) -> tuple[Listener, dict[str, Any]]:
        weights, listener = tmp_path / f"{len(said)}.pt", Listener()
        run_trial(small_task(**said), make_spec(), CPU, listener, objective="val/loss", weights=weights)
        return listener, torch.load(weights)

    torch._dynamo.reset()
    plain, weights = trained()
    graphs = counters["stats"]["unique_graphs"]
    compiled, same_weights = trained(compile={"backend": "eager"})
    assert counters["stats"]["unique_graphs"] > graphs
    assert compiled.points == plain.points
    assert weights.keys() == same_weights.keys()
    assert compiled.model_info[0] == {**plain.model_info[0], "compile": {"backend": "eager"}}


def without_compiler(*_: object) -> NoReturn:
    """A backend that finds no compiler; torch's own takes half a minute to find that out."""
    raise RuntimeError("no g++")


def test_where_there_is_no_compiler_the_model_is_trained_as_it_is_and_that_is_said() -> None:
    register_backend(without_compiler)
    task = small_task(compile={"backend": "without_compiler"})
    with pytest.warns(UserWarning, match=r"Task\(compile=…\): no compiler works here \(.*no g\+\+"):
        lrsearch.range_test(task, steps=20, device="cpu", tracking=False, progress=False)
    _, heard = run(task)
    assert heard.model_info[0]["compile"] is False
    assert heard.points == run(small_task())[1].points


def test_options_that_the_compiler_does_not_know_are_refused() -> None:
    with pytest.raises(InputError, match=r"compile=\{'backend': 'nope'\}: Invalid backend: 'nope'"):
        FromTask(small_task(compile={"backend": "nope"})).check(SweepPlan(), CPU)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"accumulate": 0}, "accumulate=0: .*; give the number of batches a step, at least 1"),
        ({"clip": 0}, "clip=0: .*; give the largest gradient norm, above 0, or None"),
        ({"clip": -1.0}, "clip=-1.0: .*; give the largest gradient norm, above 0, or None"),
        ({"precision": "fp16"}, "precision='fp16': .*; choose '32', '16' or 'bf16'"),
        ({"val_every": 0}, "val_every=0: .*; give a number of updates"),
        ({"val_every": 5, "val_loader": None}, "val_every=5: is given without a val_loader"),
        ({"ema": 1.0}, "ema=1.0: .*; give a decay between 0 and 1"),
        ({"compile": "fast"}, "compile='fast': .*; give True, or the arguments of torch.compile"),
        ({"epochs": 3, "steps": 100}, "steps=100: is given beside epochs=3; give one of them"),
        ({"steps": 0}, "steps=0: .*; give a whole number"),
    ],
)
def test_nonsense_is_refused_when_the_task_is_made(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_task(**said)
