from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from lrsearch.errors import InputError
from lrsearch.files import write_whole
from lrsearch.tracking.folder import StudyFolder, create_folder, find_folder, range_test_name


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRSEARCH_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "-x", ".hidden", "a/b", "../a", "a\\b", "a\0b", "a\nb", "n" * 201]
)
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^name="):
        create_folder(name)


def test_only_the_owner_may_read_a_folder() -> None:
    assert create_folder("mnist-sgd").path.stat().st_mode & 0o777 == 0o700


def test_home_is_in_the_working_directory_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRSEARCH_HOME")
    monkeypatch.chdir(tmp_path)
    assert create_folder("a").path == tmp_path / "lrsearch-runs" / "a"


def test_a_study_is_not_overwritten() -> None:
    create_folder("mnist-sgd")
    with pytest.raises(InputError, match="resume it, or take another name"):
        create_folder("mnist-sgd")


def test_a_folder_is_there_with_all_it_begins_with_or_not_at_all(tmp_path: Path) -> None:
    def plan_is_written(folder: StudyFolder) -> None:
        folder.plan.write_text("{}")
        assert not (tmp_path / "home" / "study").exists()

    def disk_is_full(folder: StudyFolder) -> None:
        plan_is_written(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match=r"cannot be written .No space left on device"):
        create_folder("study", begin=disk_is_full)
    assert not list((tmp_path / "home").iterdir())
    assert create_folder("study", begin=plan_is_written).plan.read_text() == "{}"
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["study"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/study cannot be written .*--out or LRSEARCH_HOME"):
        create_folder("study", out=tmp_path / "file" / "study")


def test_a_folder_of_ones_own_is_found_by_its_path(tmp_path: Path) -> None:
    made = create_folder("a", out=tmp_path / "elsewhere")
    assert find_folder(str(tmp_path / "elsewhere")) == made


def test_an_unknown_study_lists_the_nearest_first() -> None:
    for name in ("cifar", "mnist-sgd", "text"):
        create_folder(name)
    with pytest.raises(InputError, match="no such study; there are mnist-sgd, "):
        find_folder("mnist-sdg")


def test_an_unknown_study_where_there_is_none_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(f"there is none in {tmp_path / 'home'}")):
        find_folder("mnist")


@pytest.mark.parametrize("task", ["digits", "my net/2", "..", ""])
def test_the_name_of_a_range_test_is_a_file_name(task: str) -> None:
    name = range_test_name(task)
    assert re.fullmatch(r"range-test-[\w.-]+-\d{8}t\d{6}z-[0-9a-f]{4}", name)
    assert create_folder(name).name == name


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b", ".", "link/x"])
def test_a_file_name_cannot_lead_out_of_the_folder(tmp_path: Path, path: str) -> None:
    folder = StudyFolder(tmp_path)
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(InputError, match="not a file inside"):
        folder.inside(path)


def test_an_interrupted_write_leaves_the_old_text(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    write_whole(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "new \ud800")
    assert file.read_text() == "old"
