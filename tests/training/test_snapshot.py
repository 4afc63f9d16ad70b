"""preserve_state: whatever happened inside, everything outside is as it was, bit for bit."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, DistributedSampler

from lrsearch.errors import InputError
from lrsearch.training.loaders import is_one_shot, seed_loaders
from lrsearch.training.random_state import preserve_random_state, seed_everything
from lrsearch.training.snapshot import Keep, preserve_state
from tests.training.fingerprints import bits, changes, fingerprint
from tests.training.zoo import FEATURES, ZOO, Setup, build, loader, net, train

KEEPS: tuple[Keep, ...] = get_args(Keep)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The tensors here are tiny: threads only cost time, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class LossError(Exception):
    """What a loss function of the user's may raise."""


def disturb(setup: Setup) -> None:
    """Train under a scheduler, then change all that user code could change besides."""
    train(setup, 3, LambdaLR(setup.optimizer, lambda step: 1.5**step))
    random.random()
    np.random.rand()  # noqa: NPY002
    torch.rand(())
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic = not torch.backends.cudnn.deterministic
    setup.model.train(not setup.model.training)
    for parameter in setup.model.parameters():
        parameter.requires_grad_(not parameter.requires_grad)
    setup.model.register_buffer("extra", torch.ones(2), persistent=False)
    setup.model.register_forward_hook(lambda *_: None)
    setup.optimizer.register_step_post_hook(lambda *_: None)
    setup.optimizer.param_groups[0]["note"] = 1
    setup.optimizer.defaults["lr"] = 7.0


def end_normally(setup: Setup) -> None:
    disturb(setup)


def end_with_exception(setup: Setup) -> None:
    disturb(setup)
    raise LossError


def end_with_ctrl_c(setup: Setup) -> None:
    disturb(setup)
    raise KeyboardInterrupt


def end_with_nan(setup: Setup) -> None:
    train(setup, 1)
    for group in setup.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(math.nan)
        else:
            group["lr"] = math.nan
    train(setup, 2)
    trained = [p for p in setup.model.parameters() if p.requires_grad]
    assert any(bool(p.isnan().any()) for p in trained)
    disturb(setup)


ENDINGS = [end_normally, end_with_exception, end_with_ctrl_c, end_with_nan]


def run(setup: Setup, ending: Callable[[Setup], None], keep: Keep = "device") -> None:
    with (
        contextlib.suppress(LossError, KeyboardInterrupt),
        preserve_state(setup.model, setup.optimizer, scaler=setup.scaler, loaders=[setup.loader], keep=keep),
    ):
        ending(setup)


@pytest.mark.parametrize("trained", [0, 2], ids=["fresh", "used"])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ZOO)
def test_everything_is_as_before(kind: str, ending: Callable[[Setup], None], trained: int) -> None:
    setup = build(kind, trained=trained)
    before = fingerprint(setup)
    run(setup, ending)
    assert changes(before, fingerprint(setup)) == []


def test_a_full_disk_for_the_copy_is_named_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    said = r"cannot hold the model \(File too large\); set TMPDIR"
    try:
        with pytest.raises(InputError, match=said), preserve_state(nn.Linear(500, 500), keep="disk"):
            pytest.fail("the block was entered")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", ["cpu", "disk"])
@pytest.mark.parametrize("kind", ZOO)
def test_everything_is_as_before_wherever_the_copy_lies(kind: str, keep: Keep) -> None:
    setup = build(kind, trained=2)
    before = fingerprint(setup)
    run(setup, end_with_nan, keep)
    assert changes(before, fingerprint(setup)) == []


@pytest.mark.parametrize("kind", ZOO)
def test_without_it_the_fingerprint_would_differ(kind: str) -> None:
    setup = build(kind, trained=2)
    before = fingerprint(setup)
    disturb(setup)
    changed = changes(before, fingerprint(setup))
    torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = False
    for part in ("model", "optimizer", "random", "numpy", "torch", "cudnn"):
        assert any(key.startswith(part) for key in changed)


def next_training(kind: str, ending: Callable[[Setup], None] | None) -> tuple[list[float], list[float]]:
    """Losses and batches of three steps, after a block with that ending or without one."""
    setup = build(kind, trained=2)
    if ending is not None:
        run(setup, ending)
    setup.order.clear()
    return train(setup, 3), setup.order


@pytest.mark.parametrize("kind", ZOO)
def test_the_training_that_follows_is_the_one_without_the_block(kind: str) -> None:
    assert next_training(kind, end_with_nan) == next_training(kind, None)


@pytest.mark.parametrize("ending", [end_with_exception, end_with_ctrl_c])
def test_the_exception_reaches_the_caller(ending: Callable[[Setup], None]) -> None:
    setup = build("Adam")
    with pytest.raises((LossError, KeyboardInterrupt)), preserve_state(setup.model, setup.optimizer):
        ending(setup)


def test_a_second_scheduler_on_the_same_optimizer_starts_afresh() -> None:
    setup = build("SGD, momentum")
    lrs = []
    for _ in range(2):
        with preserve_state(setup.model, setup.optimizer, loaders=[setup.loader]):
            scheduler = OneCycleLR(setup.optimizer, max_lr=1.0, total_steps=4)
            train(setup, 2, scheduler)  # a wrapped step that was left behind makes torch warn here
            lrs.append(scheduler.get_last_lr())
        assert "step" not in vars(setup.optimizer)
    assert lrs[0] == lrs[1]


def test_a_scheduler_from_before_goes_on() -> None:
    setup = build("mlp, SGD")
    scheduler = LambdaLR(setup.optimizer, lambda step: 0.5**step)
    train(setup, 1, scheduler)
    run(setup, end_normally)
    train(setup, 1, scheduler)
    assert setup.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.25)


def test_deterministic_algorithms_are_as_before() -> None:
    with preserve_state(net()):
        torch.use_deterministic_algorithms(True, warn_only=True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def swap_data(model: Any) -> None:
    model.double()  # replaces each parameter's .data


def swap_parameter(model: Any) -> None:
    model[0].weight = nn.Parameter(torch.zeros(8, FEATURES))


def swap_layer(model: Any) -> None:
    model[0] = nn.Linear(FEATURES, 8)


def delete_bias(model: Any) -> None:
    del model[0].bias


def reorder_parameters(model: Any) -> None:
    weight = model[0].weight
    del model[0].weight
    model[0].weight = weight


def clear_gradients(model: Any) -> None:
    model.zero_grad(set_to_none=True)


def scale_gradients(model: Any) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)


def swap_data_with_gradients(model: Any) -> None:
    for parameter in model.parameters():
        parameter.grad = None
        parameter.data = parameter.data.double()
        parameter.grad = torch.ones_like(parameter)


def give_buffer_a_graph(model: Any) -> None:
    model.running_mean.add_(model[0].weight.sum())


def parametrize_weight(model: Any) -> None:
    parametrizations.orthogonal(model[0])  # gives the layer another class


@pytest.mark.parametrize(
    "change",
    [
        swap_data,
        swap_data_with_gradients,
        swap_parameter,
        swap_layer,
        delete_bias,
        reorder_parameters,
        clear_gradients,
        scale_gradients,
        give_buffer_a_graph,
        parametrize_weight,
    ],
)
def test_what_the_block_replaces_comes_back(change: Callable[[nn.Module], None]) -> None:
    setup = build("gradients on entry")
    setup.model.register_buffer("running_mean", torch.zeros(()))
    before = fingerprint(setup)
    with preserve_state(setup.model, setup.optimizer):
        change(setup.model)
        assert changes(before, fingerprint(setup))
    assert changes(before, fingerprint(setup)) == []


def test_an_optimizer_that_was_loaded_in_the_block_comes_back() -> None:
    setup, other = build("Adam", trained=2), build("Adam", trained=3)
    before = fingerprint(setup)
    with preserve_state(setup.model, setup.optimizer):
        setup.optimizer.load_state_dict(other.optimizer.state_dict())
    assert [key for key in changes(before, fingerprint(setup)) if key.startswith("optimizer")] == []


def test_a_graph_from_before_the_block_can_still_be_used() -> None:
    setup = build("Adam")
    inputs, targets = next(iter(setup.loader))
    loss = nn.functional.cross_entropy(setup.model(inputs), targets)
    expected = torch.autograd.grad(loss, list(setup.model.parameters()), retain_graph=True)
    with preserve_state(setup.model, setup.optimizer), torch.no_grad():
        for parameter in setup.model.parameters():
            parameter.data.fill_(math.nan)
    got = torch.autograd.grad(loss, list(setup.model.parameters()))
    assert all(map(torch.equal, expected, got))


def test_arrays_in_optimizer_state_come_back() -> None:
    setup = build("Adam", trained=1)
    parameter = next(setup.model.parameters())
    setup.optimizer.state[parameter]["history"] = np.arange(3.0)
    with preserve_state(setup.model, setup.optimizer):
        setup.optimizer.state[parameter]["history"] *= 2
    assert setup.optimizer.state[parameter]["history"].tolist() == [0.0, 1.0, 2.0]


def test_a_function_in_a_param_group_stays_the_same() -> None:
    setup = build("Adam")
    setup.optimizer.param_groups[0]["callback"] = setup.model.forward
    with preserve_state(setup.model, setup.optimizer):
        pass
    assert setup.optimizer.param_groups[0]["callback"].__self__ is setup.model


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_model() -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(FEATURES, 2), nn.BatchNorm1d(2)))
    before = {name: bits(tensor) for name, tensor in model.state_dict().items()}
    with preserve_state(model):
        model(torch.randn(4, FEATURES)).sum().backward()
        torch.optim.SGD(model.parameters(), lr=1.0).step()
        model.eval()
    assert before == {name: bits(tensor) for name, tensor in model.state_dict().items()}
    assert all(module.training for module in model.modules())


def allocated(profiler: profile) -> list[int]:
    """How many bytes torch held, more than at the start, after each allocation and release."""
    results: Any = profiler.profiler.kineto_results  # type: ignore[union-attr]
    events = [event for event in results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return list(itertools.accumulate(sizes, initial=0))


@pytest.mark.parametrize("keep", KEEPS)
def test_memory_is_one_copy_at_most(keep: Keep) -> None:
    first, second = nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False)
    first.weight = second.weight
    shares_memory = nn.Linear(256, 256, bias=False).requires_grad_(False)
    shares_memory.weight.data = first.weight.data
    model = nn.Sequential(first, second, shares_memory, nn.Linear(256, 256, bias=False))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 256)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    block = contextlib.ExitStack()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as entering:
        block.enter_context(preserve_state(model, optimizer, keep=keep))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as leaving:
        block.close()
    inside = allocated(entering)[-1]
    one_copy = 2 * 3 * 256 * 256 * 4  # two weights, each with Adam's two averages
    random_state_and_steps = 8192
    assert inside < random_state_and_steps if keep == "disk" else inside >= one_copy
    # On leaving, torch counts the file that it maps as held.
    assert max(*allocated(entering), inside + max(allocated(leaving))) < one_copy + 2 * random_state_and_steps


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("ending", ENDINGS)
def test_disk_copy_is_deleted(ending: Callable[[Setup], None], temporary_folder: Path) -> None:
    seen: list[Path] = []

    def look_and_end(setup: Setup) -> None:
        seen.extend(temporary_folder.rglob("*.pt"))
        ending(setup)

    setup = build("Adam", trained=1)
    run(setup, look_and_end, "disk")
    assert seen
    assert list(temporary_folder.iterdir()) == []


def test_random_state_alone() -> None:
    generator, array_generator = torch.Generator().manual_seed(1), np.random.default_rng(1)
    data = loader(generator=generator)
    data.dataset.rng = array_generator  # type: ignore[attr-defined]

    def draw() -> list[float]:
        numbers = [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002
        own = [torch.rand((), generator=generator).item(), array_generator.random()]
        return [*numbers, *own]

    with preserve_random_state([data]):
        inside = draw()
    assert draw() == inside


def test_random_numbers_of_a_data_set_that_is_no_dataset() -> None:
    class Rows(list[int]):
        rng = None

    rows = Rows([1, 2])
    rows.rng = random.Random(1)  # type: ignore[assignment]
    with preserve_random_state([DataLoader(rows)]):  # type: ignore[arg-type]
        inside = rows.rng.random()  # type: ignore[attr-defined]
    assert rows.rng.random() == inside  # type: ignore[attr-defined]


def test_sampler_epoch_comes_back() -> None:
    sampler = DistributedSampler(range(16), num_replicas=2, rank=0)  # type: ignore[arg-type, var-annotated]
    data = loader(sampler=sampler, shuffle=False)
    with preserve_random_state([data]):
        sampler.set_epoch(3)
    assert sampler.epoch == 0


def test_persistent_workers_start_again() -> None:
    data = loader(num_workers=1, persistent_workers=True, generator=torch.Generator().manual_seed(1))
    with preserve_random_state([data]):
        inside = [float(inputs.sum()) for inputs, _ in data]
    assert [float(inputs.sum()) for inputs, _ in data] == inside


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 1, -1])
def test_seed_everything_makes_every_generator_repeat(seed: int) -> None:
    draws = []
    with preserve_random_state():
        for _ in range(2):
            seed_everything(seed)
            draws.append((random.random(), np.random.rand(), torch.rand(()).item()))  # noqa: NPY002
    assert draws[0] == draws[1]


@pytest.mark.parametrize("kind", ["loader with generator", "batch sampler with generator"])
def test_seed_loaders_sets_the_order_of_the_data(kind: str) -> None:
    orders = {}
    for name, seed in [("a", 5), ("again", 5), ("b", 6)]:
        setup = build(kind)
        seed_loaders([setup.loader], seed)
        train(setup, 4)
        orders[name] = setup.order
    assert orders["a"] == orders["again"] != orders["b"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.random.default_rng(1),
        lambda: np.random.RandomState(1),
        lambda: random.Random(1),
    ],
)
def test_seed_loaders_reaches_a_data_set(make: Callable[[], Any]) -> None:
    data = loader()
    data.dataset.rng = make()  # type: ignore[attr-defined]
    draws = []
    for seed in (5, 5, 6):
        seed_loaders([data], seed)
        draws.append(data.dataset.rng.random())  # type: ignore[attr-defined]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("make", "one_shot"),
    [
        (lambda: [1, 2], False),
        (lambda: DataLoader([1, 2]), False),  # type: ignore[arg-type]
        (lambda: range(3), False),
        (lambda: iter([1, 2]), True),
        (lambda: (x for x in [1, 2]), True),
        (lambda: zip([1], [2], strict=True), True),
        (lambda: iter(DataLoader([1, 2])), True),  # type: ignore[arg-type]
    ],
)
def test_is_one_shot(make: Callable[[], object], one_shot: bool) -> None:
    assert is_one_shot(make()) is one_shot


def test_is_one_shot_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    is_one_shot(DataLoader([1, 2]))  # type: ignore[arg-type]
    assert torch.equal(before, torch.get_rng_state())


def unknown_keep() -> None:
    with preserve_state(net(), keep="gpu"):  # type: ignore[arg-type]
        pass


def lazy_model() -> None:
    with preserve_state(nn.Sequential(nn.LazyLinear(3))):
        pass


def state_that_cannot_be_copied() -> None:
    setup = build("Adam")
    setup.optimizer.state[next(setup.model.parameters())]["open"] = iter_lines()
    with preserve_state(setup.model, setup.optimizer):
        pass


def iter_lines() -> Iterator[str]:
    yield ""


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (unknown_keep, 'keep=\'gpu\': is no place to keep a copy; use "device", "cpu" or "disk"'),
        (
            lazy_model,
            "model='Sequential': 0.weight is not initialised yet; run one batch through it first",
        ),
        (state_that_cannot_be_copied, "optimizer='generator': such state cannot be copied"),
    ],
)
def test_bad_input(case: Callable[[], None], message: str) -> None:
    with pytest.raises(InputError) as caught:
        case()
    assert str(caught.value).startswith(message)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("keep", KEEPS)
def test_cuda_model_and_random_state(keep: Keep) -> None:
    model = net(nn.Dropout(0.5)).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def losses() -> list[float]:
        values = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(torch.ones(4, FEATURES, device="cuda")).square().mean()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
        return values

    losses()
    with preserve_state(model, optimizer, keep=keep):
        inside = losses()
    assert losses() == inside
