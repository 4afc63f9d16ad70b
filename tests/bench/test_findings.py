"""What the benchmark says about decay and short trainings follows from its tables; nothing is trained."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from tests.bench.regret import findings
from tests.bench.regret.oracle import SCHEDULES, SEEDS, read_cells, whole_tasks
from tests.bench.regret.replay import Oracle, oracle
from tests.bench.regret.tasks import CASES


@pytest.fixture(scope="module")
def written() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(findings.PATH.read_text(encoding="utf-8"))["tasks"]
    return found


@pytest.fixture(params=whole_tasks())
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def means(task: str, schedule: str) -> tuple[list[float], list[float]]:
    """The lrs and mean losses of those lrs of a task's table at which no seed diverged."""
    losses = defaultdict(list)
    for cell in read_cells(task):
        if cell.schedule == schedule:
            losses[cell.lr].append(cell.loss)
    alive = {lr: [x for x in values if x is not None] for lr, values in losses.items() if None not in values}
    return sorted(alive), [float(np.mean(alive[lr])) for lr in sorted(alive)]


def vertex(task: str, schedule: str) -> float:
    """The lr at the bottom of the parabola through the lowest mean and its neighbours."""
    lrs, losses = means(task, schedule)
    k = int(np.argmin(losses))
    a, b, _ = np.polyfit(np.log(lrs[k - 1 : k + 2]), losses[k - 1 : k + 2], 2)
    return float(np.exp(-b / (2 * a)))


def test_every_short_training_is_in_the_table(task: str) -> None:
    rows = {(row.lr, row.schedule, row.seed) for row in findings.TABLE.read() if row.task == task}
    assert rows == set(itertools.product(findings.compared(task), findings.DECAYING, SEEDS))


def test_what_is_written_is_what_the_tables_say(written: dict[str, dict[str, Any]]) -> None:
    assert findings.finding("digits-mlp") == written["digits-mlp"]


def test_a_shift_is_the_ratio_of_two_vertices(written: dict[str, dict[str, Any]]) -> None:
    by_hand = vertex("mnist-5k-cnn", "linear") / vertex("mnist-5k-cnn", "constant")
    assert written["mnist-5k-cnn"]["shift"]["linear"][0] == pytest.approx(by_hand, rel=1e-3)


def test_keeping_the_lr_loses_nothing_where_the_best_lr_stays(written: dict[str, dict[str, Any]]) -> None:
    assert written["digits-mlp"]["shift"]["wsd"][0] == 1
    assert written["digits-mlp"]["keeping the lr loses"]["wsd"][0] == 0


def test_keeping_the_lr_loses_what_the_means_differ_by(written: dict[str, dict[str, Any]]) -> None:
    lrs, losses = means("moby-gru", "linear")
    kept = lrs[int(np.argmin(means("moby-gru", "constant")[1]))]
    known = oracle("moby-gru")
    by_hand = 100 * (losses[lrs.index(kept)] - min(losses)) / (known.trivial - known.best)
    assert written["moby-gru"]["keeping the lr loses"]["linear"][0] == pytest.approx(by_hand, rel=1e-3)


def test_full_trainings_choose_the_best(written: dict[str, dict[str, Any]], task: str) -> None:
    chosen = written[task]["choice"]["full"]
    assert chosen["rank of the best"] == 1
    assert abs(chosen["regret"]) < 0.5


def test_short_trainings_choose_the_lowest_mean_of_their_table(written: dict[str, dict[str, Any]]) -> None:
    losses = defaultdict(list)
    for row in findings.TABLE.read():
        if row.task == "fashion-mlp":
            losses[row.lr, row.schedule].append(np.inf if row.loss is None else row.loss)
    lr, schedule = min(losses, key=lambda key: float(np.mean(losses[key])))
    chosen = written["fashion-mlp"]["choice"]["short"]
    assert (chosen["lr"], chosen["schedule"]) == (lr, schedule)
    assert chosen["regret"] == pytest.approx(100 * oracle("fashion-mlp").regret(lr, schedule), rel=1e-3)


def test_truncated_trainings_have_the_loss_of_that_epoch_or_diverged_by_then() -> None:
    cells = read_cells("digits-mlp")
    for before, after in zip(cells, findings.truncated(cells, 2), strict=True):
        assert after.loss == (before.by_epoch[2] if before.steps >= 90 else None)
        assert after.diverged == (before.steps < 90)


def test_draws_are_all_there_are_and_intervals_come_from_them(written: dict[str, dict[str, Any]]) -> None:
    drawn = findings.draws()
    assert (len(drawn), sum(times for _, times in drawn)) == (126, 5**5)
    low, high = written["fashion-mlp"]["decay gains"]["linear"][1:]
    assert 0 < low < written["fashion-mlp"]["decay gains"]["linear"][0] < high


def test_the_mean_over_tasks_lies_among_the_tasks(written: dict[str, dict[str, Any]]) -> None:
    mean = json.loads(findings.PATH.read_text(encoding="utf-8"))["mean"]
    shifts = [one["shift"]["linear"][0] for one in written.values()]
    value, low, high = mean["shift"]["linear"]
    assert value == pytest.approx(float(np.exp(np.mean(np.log(shifts)))), rel=1e-3)
    assert low < value < high


def test_a_seed_drawn_alone_gives_its_own_losses() -> None:
    cells = findings.near_cells("digits-mlp")
    one = Oracle(CASES["digits-mlp"], findings.reseeded(cells, (3,) * len(SEEDS)))
    own = {(cell.lr, cell.schedule): cell.loss for cell in cells if cell.seed == 3}
    for name in SCHEDULES:
        assert one.expected(1.0, name) == pytest.approx(own[1.0, name])
