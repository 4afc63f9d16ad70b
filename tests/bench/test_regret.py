"""The oracle's tables and what is read off them; the whole benchmark takes minutes."""

from __future__ import annotations

import pytest

from lrsearch.errors import InputError
from tests.bench.regret.oracle import asked, read_cells, setting_of, whole_tasks
from tests.bench.regret.replay import OracleExecutor, config_of, oracle, replay
from tests.bench.regret.tasks import CASES


@pytest.fixture(params=whole_tasks())
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_table_holds_the_grid(task: str) -> None:
    cells = {cell.key for cell in read_cells(task)}
    assert cells == {*asked(CASES[task])}


def test_the_best_lr_loses_next_to_nothing_and_lies_inside(task: str) -> None:
    known = oracle(task)
    best = known.best_lr(known.best_schedule)
    assert abs(known.regret(best, known.best_schedule)) < 0.01
    assert known.lrs[0] < best < known.lrs[-1]


def test_what_learns_nothing_loses_all(task: str) -> None:
    known = oracle(task)
    assert known.regret(None, "constant") == 1
    assert known.regret(float(known.lrs[0]), "constant") > 0.2


def test_seeds_differ_as_much_as_the_tables_do(task: str) -> None:
    known = oracle(task)
    name = known.best_schedule
    lab = OracleExecutor(known, 0)
    lr = float(min(known.lrs, key=lambda lr: known.expected(float(lr), name)))
    losses = [lab.loss(lr, name, seed) for seed in range(400)]
    mean = sum(losses) / len(losses)
    spread = (sum((loss - mean) ** 2 for loss in losses) / len(losses)) ** 0.5
    column = known.tables[name].column(lr)
    assert mean == pytest.approx(known.expected(lr, name), abs=4 * spread / len(losses) ** 0.5)
    assert spread == pytest.approx(column.std(ddof=1), rel=0.15)


def test_a_replay_is_begun_on_the_config_of_the_real_study(task: str) -> None:
    try:
        real = setting_of(CASES[task], "thorough", budget=30).config
    except (ModuleNotFoundError, FileNotFoundError, InputError) as missing:
        pytest.skip(f"its data are not here: {missing}")
    replayed = config_of(task, "thorough", '{"budget": 30}')
    for part in ("plan", "total_steps", "steps_per_epoch", "model_info", "sweep"):
        assert getattr(replayed, part) == getattr(real, part), part


@pytest.mark.parametrize("preset", ["quick", "default"])
def test_at_most_a_third_of_the_studies_carry_a_warning(preset: str) -> None:
    answers = [replay(task, number, preset).answer for task in whole_tasks() for number in range(3)]
    warned = [answer for answer in answers if answer is None or answer.warnings]
    assert len(warned) <= len(answers) / 3


def test_a_replay_is_the_same_twice_and_another_with_another_number(task: str) -> None:
    first, again, other = (replay(task, number, "quick").choice for number in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("preset", ["quick", "default"])
def test_a_replay_keeps_to_its_budget_and_answers(task: str, preset: str) -> None:
    found = [replay(task, number, preset).choice for number in range(3)]
    assert all(choice.lr is not None for choice in found)
    assert max(choice.cost for choice in found) <= {"quick": 10, "default": 16}[preset]
