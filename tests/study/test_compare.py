"""Real studies compared: read from their folders, shown, and refused where they cannot be held together."""

from __future__ import annotations

import functools
import json
import math
import shutil
from pathlib import Path

import pytest

import lrsearch
from lrsearch import InputError, RecordError
from lrsearch.report.plots.range_test import file_axes
from lrsearch.study.compare import ComparisonResult, compare
from lrsearch.tracking.folder import StudyFolder
from tests.study.tasks import NOWHERE, Known, digits, end_own_mirror, study

CONFIRM = {"seeds": 3, "max_seeds": 3}
PLAN = {
    "preset": "quick",
    "budget": 16.0,
    "range_test": {"repeats": 1, "share": 0.7},
    "coarse": {"points": 3, "extensions": 1},
    "confirm": CONFIRM,
}
NOISE = 0.002
GAIN = 0.2
"""By so much decay is better in one of the studies, and in no other: a hundred times the noise."""


def known(gain: float, batch_size: int) -> functools.partial[None]:
    """A training function whose losses are known, and which was bound to a batch size."""
    train = Known(gain=gain, noise=NOISE, first_validation=True)
    bound = functools.partial(lambda trial, batch_size: train(trial), batch_size=batch_size)
    functools.update_wrapper(bound, train, assigned=("__name__",), updated=())
    return bound


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies of losses that are known: a and b are equal, c is better."""
    place = tmp_path_factory.mktemp("compared") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSEARCH_HOME", str(place))
        for name, gain, size in (("a", 0.0, 16), ("b", 0.0, 32), ("c", GAIN, 64)):
            study(known(gain, size), name, plan=PLAN)
        study(digits(), "other", epochs=1, objective="val/accuracy")
        lrsearch.range_test(digits(), tracking_uri=NOWHERE, out=place / "sweep")
        end_own_mirror("sweep")
    return place


@pytest.fixture
def here(studied: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRSEARCH_HOME", str(studied))
    return studied


@pytest.fixture
def copied(studied: Path, home: Path) -> Path:
    """Copies of a and b, to be damaged."""
    for name in ("a", "b"):
        shutil.copytree(studied / name, home / name)
    return home


@pytest.fixture
def found(here: Path) -> ComparisonResult:
    return compare("a", "b", "c")


def test_the_better_study_is_found_and_the_equal_ones_are_told_so(found: ComparisonResult) -> None:
    frame = found.to_frame().set_index("name")
    assert found.best == "c"
    assert frame.verdict.to_dict() == {"a": "worse", "b": "worse", "c": "best"}
    assert abs(frame.behind["a"] - GAIN) < 0.05
    assert compare("a", "b").to_frame().verdict.isin(["best", "not_told_apart"]).all()


def test_the_frame_holds_each_studys_own_answer(found: ComparisonResult) -> None:
    frame = found.to_frame().set_index("name")
    for name in ("a", "b", "c"):
        result = lrsearch.load(name)
        row = frame.loc[name]
        assert (row.lr, row.schedule, row.cost) == (result.lr, result.schedule.name, result.cost)
        assert (row.interval_low, row.interval_high) == (result.interval.low, result.interval.high)
        assert row.objective == pytest.approx(result.answer.objective)


def test_the_arguments_of_a_training_function_tell_its_batch_size(found: ComparisonResult) -> None:
    assert found.to_frame().batch_size.tolist() == [16, 32, 64]
    assert list(found.comparison.differing) == ["batch_size"]
    assert found.plot_lr_against_batch_size(file_axes()).get_xlabel() == "batch size"


def test_it_is_plain_json(found: ComparisonResult) -> None:
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["best"] == "c"
    assert all(math.isfinite(entry["objective"]) for entry in plain["studies"])


def test_it_is_drawn_on_the_axes_that_are_given(found: ComparisonResult) -> None:
    ax = file_axes()
    assert found.plot(ax) is ax
    assert ax.get_ylabel() == "final val/loss"


def test_the_page_is_written_where_asked(found: ComparisonResult, tmp_path: Path) -> None:
    path = found.report(tmp_path / "page.html")
    assert path == tmp_path / "page.html"
    assert "c has the best mean val/loss" in path.read_text(encoding="utf-8")


def test_a_notebook_shows_the_studies(found: ComparisonResult) -> None:
    shown = found._repr_html_()
    assert all(f">{name}<" in shown for name in ("a", "b", "c"))
    assert repr(found) == "ComparisonResult(a, b, c; best='c')"


def test_a_folder_elsewhere_is_compared_by_its_path(here: Path, tmp_path: Path) -> None:
    place = tmp_path / "else" / "a"
    shutil.copytree(here / "a", place)
    names = [row.name for row in compare("a", str(place)).comparison.rows]
    assert names == ["a", str(place)]


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), r"names=\[\]: there is nothing to compare"),
        (("a",), r"names=\['a'\]: there is nothing to compare"),
        (("a", "b", "a"), "names='a': is named twice"),
        (("a", "oter"), "name='oter': no such study; there are other, "),
        (("a", "other"), r"names=\['a', 'other'\]: a was to minimize the final val/loss, other to maximize"),
    ],
)
def test_what_cannot_be_compared_is_refused(here: Path, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        compare(*names)


def test_the_same_study_by_its_path_is_the_same_study(here: Path) -> None:
    with pytest.raises(InputError, match="is named twice"):
        compare("a", str(here / "a"))


def test_a_range_test_is_no_study(here: Path) -> None:
    with pytest.raises(RecordError, match="sweep is a range test, no study"):
        compare("a", "sweep")


def test_an_unfinished_study_is_named(copied: Path) -> None:
    StudyFolder(copied / "b").result.unlink()
    with pytest.raises(RecordError, match="b is not finished; continue with: lrsearch resume b"):
        compare("a", "b")


def test_a_damaged_study_is_named(copied: Path) -> None:
    result = StudyFolder(copied / "b").result
    result.write_text(result.read_text(encoding="utf-8")[:100], encoding="utf-8")
    with pytest.raises(RecordError, match=f"{result} is damaged"):
        compare("a", "b")


def test_a_page_that_cannot_be_written_is_an_input_error(found: ComparisonResult, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out=.*cannot be written"):
        found.report(tmp_path / "nowhere" / "page.html")
