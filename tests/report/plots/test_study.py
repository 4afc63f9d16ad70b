"""The plots of a study: what they mark, and that the awful does not hide the interesting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from lrsearch.core.answer import StageResult
from lrsearch.core.response import Interval
from lrsearch.report.plots.range_test import file_axes, png
from lrsearch.report.plots.study import plot_learning_curves, plot_response, plot_schedules, styles
from lrsearch.schedules import BUILT_IN, schedule_names
from tests.report.studies import BEST, STEPS, answer_of, loss_of, plan_of, stages_of, trial

KINDS: dict[str, dict[str, Any]] = {
    "loss": {},
    "accuracy": {"metric": "val/accuracy"},
    "short trainings": {"proxy": 0.25},
    "no bracket": {"blind": True},
}


def draw(
    kind: str = "loss", winner: str = "linear", extra: StageResult | None = None, **changed: Any
) -> Axes:
    metric = KINDS[kind].get("metric", "val/loss")
    stages = stages_of(**KINDS[kind])
    answer = answer_of(stages, metric, winner, **changed)
    return plot_response(
        answer, (*stages, extra) if extra else stages, plan_of(metric), STEPS, ax=file_axes()
    )


def marks(ax: Axes, marker: str) -> list[Line2D]:
    """The drawn marks of a shape, without those of the legend."""
    return [line for line in ax.get_lines() if line.get_marker() == marker and len(x_of(line))]


def x_of(line: Line2D) -> list[float]:
    return [float(x) for x in np.atleast_1d(np.asarray(line.get_xdata()))]


def y_of(line: Line2D) -> list[float]:
    return [float(y) for y in np.atleast_1d(np.asarray(line.get_ydata()))]


def labels(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def points(ax: Axes, schedule: str) -> set[tuple[float, float]]:
    """The trainings that are drawn in view."""
    marker = styles(BEST)[schedule].marker
    return {(x_of(line)[0], y_of(line)[0]) for line in marks(ax, marker) if line.get_fillstyle() == "full"}


# --- objective against lr ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("winner", ["constant", "linear"])
def test_every_study_draws_and_the_same_one_the_same(kind: str, winner: str, tmp_path: Path) -> None:
    for file in ("first.png", "second.png"):
        (tmp_path / file).write_bytes(png(draw(kind, winner)))
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert (tmp_path / "first.png").stat().st_size > 10_000


def test_every_training_is_a_point() -> None:
    expected = {(lr, loss_of("linear", lr)) for lr in (0.05, 0.1, 0.2)}
    expected |= {(0.1, loss_of("linear", 0.1, seed)) for seed in (1000, 1001, 1002)}
    assert points(draw(), "linear") == expected


def test_the_axes_say_what_they_are() -> None:
    ax = draw()
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate (peak of the schedule)", "final val/loss")
    assert ax.get_title() == "linear at 0.1: val/loss 0.3316"


@pytest.mark.parametrize(("kind", "height"), [("loss", 0.97), ("accuracy", pytest.approx(0.03))])
def test_diverged_trainings_are_crosses_at_the_bad_end(kind: str, height: float) -> None:
    ax = draw(kind)
    crosses = {(x, y) for line in marks(ax, "x") for x, y in zip(x_of(line), y_of(line), strict=True)}
    assert sorted(x for x, _ in crosses) == [0.6, 0.8]
    assert all(y == height for _, y in crosses)
    assert "diverged" in labels(ax)


@pytest.mark.parametrize("kind", KINDS)
def test_the_awful_does_not_squash_the_interesting(kind: str) -> None:
    low, high = draw(kind).get_ylim()
    best, fair = (0.33, 0.36) if kind != "accuracy" else (0.835, 0.82)
    assert low < min(best, fair)
    assert max(best, fair) < high
    assert abs(fair - best) > 0.15 * (high - low)


@pytest.mark.parametrize("low_open", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_legend_is_in_the_picture(kind: str, low_open: bool) -> None:
    """Its longest line is that of an interval with two open ends."""
    ax = draw(kind, interval=Interval(0.0777, 0.3333, 0.9, low_open, low_open))
    figure, legend = ax.get_figure(root=True), ax.get_legend()
    assert figure is not None
    assert legend is not None
    figure.draw_without_rendering()
    drawn = legend.get_window_extent()
    assert figure.bbox.x0 <= drawn.x0 < drawn.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= drawn.y0


def test_what_is_out_of_view_is_marked_where_it_is() -> None:
    ax = draw()
    assert [x for line in marks(ax, "^") for x in x_of(line)] == [0.0094]
    assert "out of view" in labels(ax)


def test_short_trainings_are_pale_and_said() -> None:
    ax = draw("short trainings")
    pale = {x_of(line)[0] for line in marks(ax, "o") if line.get_alpha() == 0.35}
    assert pale == {0.0375, 0.05}
    assert "shorter" in labels(ax)
    assert "shorter" not in labels(draw())


def test_the_interval_is_shaded_and_its_open_side_is_said() -> None:
    ax = draw(interval=Interval(0.06, 0.15, 0.9, low_open=False, high_open=True))
    (shade,) = ax.patches
    left, right = shade.get_extents().transformed(ax.transData.inverted()).intervalx
    assert [left, right] == pytest.approx([0.06, 0.15])
    assert "90% interval 0.06\nto 0.15 or higher" in labels(ax)


def test_the_answer_is_ringed() -> None:
    ax = draw()
    (ring,) = (line for line in ax.get_lines() if str(line.get_label()).startswith("answer"))
    assert (x_of(ring), y_of(ring)) == ([0.1], [answer_of(stages_of()).objective])
    assert ring.get_label() == "answer: linear at 0.1"


def test_what_is_not_confirmed_is_the_best_so_far() -> None:
    assert "best so far: linear at 0.1" in labels(draw(finalists=()))


def test_the_fit_of_the_chosen_schedule_goes_through_its_points() -> None:
    ax = draw()
    (curve,) = (line for line in ax.get_lines() if len(x_of(line)) > 50)
    assert [x_of(curve)[0], x_of(curve)[-1]] == pytest.approx([0.05, 0.2])
    assert curve.get_color() == styles(BEST)["linear"].colour
    for lr in (0.05, 0.1, 0.2):
        assert np.interp(lr, x_of(curve), y_of(curve)) == pytest.approx(loss_of("linear", lr), abs=0.006)


def test_no_curve_is_made_up_from_two_lrs() -> None:
    assert not [line for line in draw(winner="cosine").get_lines() if len(x_of(line)) > 50]


def test_the_baseline_stands_apart() -> None:
    ax = draw()
    assert [(x_of(line), y_of(line)) for line in marks(ax, "+")] == [([1e-3], [0.41])]
    assert "Adam (baseline)" in labels(ax)


def test_a_training_that_two_stages_share_is_drawn_once() -> None:
    again = StageResult("fine", (trial("fine", "linear", 0.1),), 0.0)
    count = [len(marks(ax, styles(BEST)["linear"].marker)) for ax in (draw(), draw(extra=again))]
    assert count[0] == count[1]


def test_a_failed_training_is_no_point() -> None:
    failed = trial("decay", "linear", 0.13)
    broken = StageResult(
        "decay", (type(failed)(failed.spec, "failed", 3, 0.1, cause="ValueError", error="no"),), 0.0
    )
    assert points(draw(extra=broken), "linear") == points(draw(), "linear")


def test_a_narrow_range_of_lrs_has_its_numbers_too() -> None:
    ax = draw()
    Path("drawn.png").write_bytes(png(ax))
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert len(ticks) >= 3
    assert ax.xaxis.get_major_formatter()(0.01, 0) == "0.01"


# --- looks ------------------------------------------------------------------------------------------------


def test_constant_looks_the_same_in_every_plot() -> None:
    looks = {styles(names)["constant"] for names in (["constant"], ["linear", "constant"], schedule_names())}
    looks.add(styles(["one_cycle at 0.3", "constant at 0.1"])["constant at 0.1"])
    assert len(looks) == 1


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_family_looks_the_same_beside_others(name: str) -> None:
    assert styles([name])[name] == styles(BUILT_IN)[name] == styles([f"{name} at 0.1"])[f"{name} at 0.1"]


def test_no_two_schedules_look_alike_without_colour() -> None:
    shapes = [(style.marker, style.dashes) for style in styles(BUILT_IN).values()]
    assert len(set(shapes)) == len(BUILT_IN)


def test_two_of_one_family_differ() -> None:
    looks = styles(["wsd at 0.1", "wsd at 0.2", "warmup+wsd at 0.1", "my own"])
    assert len(set(looks.values())) == 4


def test_colours_are_told_apart_by_people_who_see_no_red_or_no_green() -> None:
    """Cone responses as in Viénot 1999, without one kind of cone: no two default families meet."""
    rgb_to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    colours = {
        name: np.array([int(to_hex(style.colour)[k : k + 2], 16) / 255 for k in (1, 3, 5)]) ** 2.2
        for name, style in styles(["constant", "linear", "cosine", "wsd", "step", "one_cycle"]).items()
    }
    for missing in (0, 1):
        seen = {name: np.delete(rgb_to_lms @ colour, missing) for name, colour in colours.items()}
        pairs = [(a, b) for a in seen for b in seen if a < b]
        assert min(float(np.linalg.norm(seen[a] - seen[b])) for a, b in pairs) > 1.0


# --- schedules and learning curves ------------------------------------------------------------------------


def test_schedules_are_drawn_over_their_share_of_the_training() -> None:
    curves = {"constant at 0.1": np.full(5, 0.1), "linear at 0.2": np.linspace(0.2, 0.0, 101)}
    ax = plot_schedules(curves, "linear at 0.2", ax=file_axes())
    drawn = {str(line.get_label()): line for line in ax.get_lines()}
    assert [(x_of(line)[0], x_of(line)[-1]) for line in drawn.values()] == [(0.0, 1.0)] * 2
    assert y_of(drawn["linear at 0.2"]) == curves["linear at 0.2"].tolist()
    assert drawn["linear at 0.2"].get_linewidth() > drawn["constant at 0.1"].get_linewidth()
    assert ax.get_ylim()[0] == 0


def test_learning_curves_show_the_end_and_not_the_fall() -> None:
    steps = np.arange(0, 101, 10)
    values = 0.3 + 2.0 * np.exp(-steps / 5)
    ax = plot_learning_curves({"linear at 0.1": (steps, values)}, "linear at 0.1", "val/loss", ax=file_axes())
    assert ax.get_ylim()[1] < 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "val/loss")


def test_a_curve_that_explodes_does_not_hide_the_winner() -> None:
    steps = np.arange(1, 51)
    curves = {"constant at 0.1": (steps, 1.1**steps * 10.0), "linear at 0.1": (steps, 1.0 / steps)}
    low, high = plot_learning_curves(curves, "linear at 0.1", "val/loss", ax=file_axes()).get_ylim()
    assert low < 0.02
    assert high < 1


def test_a_noisy_curve_is_averaged_over_its_points() -> None:
    steps = np.arange(1, 1001)
    noisy = 1.0 + np.random.default_rng(0).normal(0, 0.3, 1000)
    ax = plot_learning_curves(
        {"linear at 0.1": (steps, noisy)}, "linear at 0.1", "train/loss", ax=file_axes()
    )
    raw, line = ax.get_lines()
    assert y_of(raw) == noisy.tolist()
    assert np.std(y_of(line)) < 0.1
    assert y_of(line)[0] == pytest.approx(1.0, abs=0.3)


def test_a_training_without_points_is_left_out() -> None:
    ax = plot_learning_curves(
        {"linear at 0.1": ([1, 2], [1.0, 0.5]), "constant at 0.1": ([], [])}, "linear at 0.1", "val/loss",
        ax=file_axes(),
    )  # fmt: skip
    assert labels(ax) == ["linear at 0.1"]


def test_nothing_recorded_gives_empty_axes() -> None:
    ax = plot_learning_curves({"linear at 0.1": ([], [])}, "linear at 0.1", "val/loss", ax=file_axes())
    assert (len(ax.get_lines()), ax.get_legend()) == (0, None)
