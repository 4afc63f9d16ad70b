"""Where a study's files lie: the one authority for names and paths."""

from __future__ import annotations

import difflib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lrsearch.errors import InputError, RecordError
from lrsearch.files import UNFINISHED

FORMAT = 3
"""Of a study's folder: it goes up where an older lrsearch could not read what a newer one writes."""
_PRIVATE = 0o700  # a folder may hold what only its owner should read
_TAKEN = "resume it, or take another name"
_FORBIDDEN = frozenset('/\\:*?"<>|\0')
_LONGEST = 255  # bytes of a file's name


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study or range test, and the path of everything in it."""

    path: Path

    @property
    def name(self) -> str:
        """The study's name."""
        return self.path.name

    @property
    def journal(self) -> Path:
        """The directory of the journals, one file a run."""
        return self.path / "journal"

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def plan(self) -> Path:
        """The plan the study runs."""
        return self.path / "plan.json"

    @property
    def optuna_db(self) -> Path:
        """Optuna's storage."""
        return self.path / "optuna.db"

    @property
    def result(self) -> Path:
        """The result."""
        return self.path / "result.json"

    @property
    def report(self) -> Path:
        """The report, one page."""
        return self.path / "report.html"

    @property
    def lock(self) -> Path:
        """Held by the one process that works on this study."""
        return self.path / "study.lock"

    @property
    def holder(self) -> Path:
        """Which process that is."""
        return self.path / "study.holder"

    @property
    def destination(self) -> Path:
        """Which MLflow server and experiment the mirror fills; holds no secret."""
        return self.path / "tracking.json"

    @property
    def mirror_state(self) -> Path:
        """What the mirror has sent so far."""
        return self.path / "mirror.json"

    @property
    def mirror_lock(self) -> Path:
        """Held by the one mirror of this folder."""
        return self.path / "mirror.lock"

    @property
    def mirror_log(self) -> Path:
        """What the mirror has to say."""
        return self.path / "mirror.log"

    def journals(self) -> list[Path]:
        """The journal files there are, in the order of their names."""
        return sorted(self.journal.glob("*.jsonl"))

    def inside(self, relative: str) -> Path:
        """The path of a file named relative to this folder; InputError where it would lead outside."""
        root = self.path.resolve()
        try:
            path = (root / relative).resolve()
            fits = all(len(os.fsencode(part)) <= _LONGEST for part in path.parts)
        except (ValueError, RuntimeError):  # NUL, half a surrogate pair; links that go in a circle
            fits = False
        if not fits or path == root or not path.is_relative_to(root):
            raise InputError("path", relative, f"it is not a file inside {self.path}", "name one inside it")
        return path


def home() -> Path:
    """The folder of all studies: `LRSEARCH_HOME`, else `lrsearch-runs` in the working directory."""
    return Path(os.environ.get("LRSEARCH_HOME") or "lrsearch-runs").absolute()


def create_folder(
    name: str,
    out: str | os.PathLike[str] | None = None,
    begin: Callable[[StudyFolder], None] | None = None,
) -> StudyFolder:
    """Make the folder of a new study, `home()/name`, or `out` itself where it is given.

    What `begin` writes into it is there as soon as the folder is: a process that is killed in between leaves
    no study that can neither be begun nor go on. Raises InputError for a name that is no file name, for a
    folder that is already in use, and for a place that cannot be written.
    """
    if out is None:
        check_name(name)
        path, argument, mend = home() / name, "name", _TAKEN
    else:
        path, argument, mend = Path(out).absolute(), "out", "take an empty or new folder"
    try:
        path.parent.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        free = _make(path, begin) if out is None else _claim(path)
    except (OSError, ValueError) as error:  # a ValueError for NUL
        raise InputError(
            argument,
            str(out or name),
            f"the folder {path} cannot be written ({getattr(error, 'strerror', None) or error})",
            "choose another place with --out or LRSEARCH_HOME",
        ) from error
    if not free:
        raise InputError(argument, str(out or name), f"the folder {path} is already in use", mend)
    return StudyFolder(path)


def _make(path: Path, begin: Callable[[StudyFolder], None] | None) -> bool:
    """Make a folder at once with what is in it; False where it is in use, or another process was faster."""
    new = StudyFolder(path.with_name(f".{path.name}.{secrets.token_hex(4)}.new"))
    new.path.mkdir(mode=_PRIVATE)
    try:
        new.journal.mkdir(mode=_PRIVATE)
        if begin is not None:
            begin(new)
        new.path.rename(path)  # takes the place of an empty folder, and of no other
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    finally:
        shutil.rmtree(new.path, ignore_errors=True)
    return True


def _claim(path: Path) -> bool:
    """Take a folder that somebody may have made; False where it is in use, or another process was faster."""
    path.mkdir(mode=_PRIVATE, exist_ok=True)
    if any(path.iterdir()):
        return False
    try:
        StudyFolder(path).journal.mkdir(mode=_PRIVATE)
    except FileExistsError:
        return False
    return True


def check_free(name: str) -> None:
    """Raise InputError where a new study could not have this name: it is none, or it is taken."""
    check_name(name)
    path = home() / name
    if path.exists() and any(path.iterdir()):
        raise InputError("name", name, f"the folder {path} is already in use", _TAKEN)


def find_folder(name: str) -> StudyFolder:
    """The folder of an existing study, by its name, or by its path where it was made with `--out`.

    Raises InputError that lists the studies there are, the nearest name first. A `journal` that holds other
    things than journals, such as `/var/log/journal`, makes no study of its parent.
    """
    if os.sep in name or (os.altsep and os.altsep in name):
        folder = StudyFolder(Path(name).absolute())
    else:
        check_name(name)
        folder = StudyFolder(home() / name)
    try:
        if folder.journal.is_dir():
            names = [path.name for path in folder.journal.iterdir() if not path.name.endswith(UNFINISHED)]
            if all(name.endswith(".jsonl") for name in names):
                return folder
    except OSError as error:
        raise InputError("name", name, f"cannot be read ({error.strerror})", "check the path") from error
    names = sorted(path.parent.name for path in home().glob("*/journal") if not _fault(path.parent.name))
    near = difflib.get_close_matches(name, names, n=len(names) or 1, cutoff=0.0)[:8]
    known = f"there are {', '.join(near)}" if near else f"there is none in {home()}"
    raise InputError("name", name, "no such study", known)


def range_test_name(task: str) -> str:
    """A new name for a range test of a task: `range-test-<task>-<UTC time>-<4 hex digits>`."""
    word = "".join(c if c.isalnum() or c in "-_." else "-" for c in task).strip("-.") or "task"
    return (
        f"range-test-{word}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime()).lower()}-{secrets.token_hex(2)}"
    )


def check_name(name: str) -> None:
    """Raise InputError where a study's name could not be a file name."""
    if fault := _fault(name):
        raise InputError("name", name, fault, "use letters, digits, '-', '_' and '.'")


def _fault(name: str) -> str | None:
    """Why a text is no study's name."""
    if not name.strip():
        return "it is empty"
    if name.startswith(("-", ".")):
        return "it begins with a dash or a dot"
    if bad := sorted(_FORBIDDEN & set(name)) or [c for c in name if not c.isprintable()]:
        return f"{bad[0]!r} cannot be part of a name"
    return "it is longer than 200 bytes" if len(os.fsencode(name)) > 200 else None


def check_format(path: Path, found: object) -> None:
    """Raise RecordError for a file that an older or a newer lrsearch wrote."""
    if found == FORMAT:
        return
    newer = isinstance(found, int) and found > FORMAT
    age, mend = ("a newer", "update lrsearch") if newer else ("an older", "take another name")
    raise RecordError(f"{path} was written by {age} lrsearch (format {found}, not {FORMAT}); {mend}")
