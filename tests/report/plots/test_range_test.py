"""The plot of a range test: what it marks, what it leaves out, and that it needs no screen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lrsearch.core.suggestion import RULES
from lrsearch.report.plots.range_test import file_axes, plot_range_test, png
from tests.report.curves import CURVES, LRS, suggestion_of


def draw(name: str) -> Axes:
    return plot_range_test(CURVES[name], suggestion_of(CURVES[name]), "digits", file_axes())


def lines(ax: Axes, label: str) -> list[Line2D]:
    return [line for line in ax.get_lines() if str(line.get_label()).startswith(label)]


def x_of(line: Line2D) -> list[float]:
    return [float(x) for x in np.atleast_1d(np.asarray(line.get_xdata()))]


@pytest.mark.parametrize("name", CURVES)
def test_every_verdict_draws(name: str, tmp_path: Path) -> None:
    ax = draw(name)
    (tmp_path / "curve.png").write_bytes(png(ax))
    content = (tmp_path / "curve.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 5000
    assert suggestion_of(CURVES[name]).verdict.replace("_", " ") in ax.get_title()
    assert all(np.isfinite(ax.get_ylim()))


@pytest.mark.parametrize("name", ["ok", "ok, three seeds", "flat"])
def test_the_same_curve_gives_the_same_bytes(name: str) -> None:
    assert png(draw(name)) == png(draw(name))


def test_the_first_ten_and_the_last_five_points_are_out_of_view() -> None:
    (raw,) = lines(draw("ok"), "raw loss")
    assert x_of(raw) == LRS[10:-5].tolist()


def test_raw_points_and_smoothed_line_of_every_seed() -> None:
    ax = draw("ok, three seeds")
    shown = [len(x_of(line)) for line in ax.get_lines()]
    assert shown.count(185) == 9
    assert [len(lines(ax, label)) for label in ("raw loss", "running average", "windowed median")] == [
        1,
        1,
        1,
    ]


def test_lr_is_drawn_on_a_log_axis() -> None:
    ax = draw("ok")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate", "training loss")


def test_the_suggestion_and_every_rule_are_marked() -> None:
    ax = draw("ok")
    found = suggestion_of(CURVES["ok"])
    marks = [x_of(line)[0] for line in ax.get_lines() if len(x_of(line)) == 1]
    assert marks == [found.rules[rule] for rule in RULES]
    assert any(x_of(line) == [found.lr] * 2 for line in ax.get_lines())
    assert f"lr {found.lr:.3g} " in ax.get_title()


def test_the_bracket_is_shaded_and_the_edge_is_marked() -> None:
    ax = draw("ok")
    bracket = suggestion_of(CURVES["ok"]).bracket
    assert bracket is not None
    (shade,) = ax.patches
    left, right = shade.get_extents().transformed(ax.transData.inverted()).intervalx
    assert (left, right) == (pytest.approx(bracket.low), pytest.approx(bracket.high))
    (edge,) = lines(ax, "edge")
    assert x_of(edge) == [bracket.high] * 2


@pytest.mark.parametrize("name", ["flat", "only_rising", "too_few_points"])
def test_no_number_is_marked_where_there_is_none(name: str) -> None:
    ax = draw(name)
    assert "no suggestion" in ax.get_title()
    assert lines(ax, "edge") == []
    assert len(ax.patches) == 0
    assert all(len(x_of(line)) > 2 for line in ax.get_lines())


def test_an_explosion_does_not_flatten_the_valley() -> None:
    low, high = draw("explosion").get_ylim()
    assert low < 0.5
    assert 2.3 < high < 10


def test_marks_are_told_apart_without_colour() -> None:
    ax = draw("ok")
    rules = [line for line in ax.get_lines() if len(x_of(line)) == 1]
    assert len({str(line.get_marker()) for line in rules}) == len(rules) == 4
    assert len({str(line.get_linestyle()) for line in ax.get_lines() if len(x_of(line)) > 1}) >= 3


def test_files_are_drawn_without_a_screen_and_without_pyplot(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from lrsearch.core.suggest import suggest
from lrsearch.report.plots.range_test import file_axes, plot_range_test, png
from tests.core.curves import u_curve
ax = plot_range_test([u_curve()], suggest(u_curve()), "digits", file_axes())
(Path({str(tmp_path)!r}) / "a.png").write_bytes(png(ax))
print("matplotlib.pyplot" in sys.modules)
"""
    checkout = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=checkout)
    assert done.stdout.strip() == "False", done.stderr
    assert (tmp_path / "a.png").stat().st_size > 5000
