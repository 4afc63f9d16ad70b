"""Attacks, each planted: what is read runs no code, leads nowhere, shows no secret, serves nobody else."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import html5lib
import pytest
import torch
from markdown_it import MarkdownIt

import lrsearch
from lrsearch import InputError, RecordError
from lrsearch.core.comparison import compare_studies
from lrsearch.core.trial import MetricSummary
from lrsearch.report.comparison import comparison_html
from lrsearch.report.comparison import page as comparison_page
from lrsearch.report.range_test import range_test_table
from lrsearch.report.study import describe_study, study_html
from lrsearch.study.executor import weights_path
from lrsearch.study.task_source import load_task
from lrsearch.study.ui import serve
from lrsearch.tracking.entries import RunStart
from lrsearch.tracking.folder import StudyFolder, create_folder
from lrsearch.tracking.journal import RunJournal
from lrsearch.training.run_trial import evaluate
from tests.conftest import CHECKOUT, Command
from tests.report.comparisons import studies_of
from tests.report.studies import answer_of, data_of, plan_of, stages_of, trial
from tests.study.tasks import NOWHERE, Ends, digits, interrupt, runs, study

WORDS = ("--tracking-uri", NOWHERE, "--sync-timeout", "0")
SOURCE = ("digits", ["hidden=16"])

# --- no code is read --------------------------------------------------------------------------------------

MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
CALLS = {"eval", "exec", "pd.read_pickle", "yaml.load", "yaml.unsafe_load", "np.fromfile"}


SOURCES = sorted({*(CHECKOUT / "lrsearch").rglob("*.py")} - {CHECKOUT / "lrsearch" / "testing.py"})
"""All but the suites for others, which run the code that they are to test."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_source_reads_a_pickle(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            assert not MODULES & {name.partition(".")[0] for name in names}
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            assert name not in CALLS
            assert keywords.get("allow_pickle") is None
            if name == "torch.load":
                assert keywords.get("weights_only") is True


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return open, (str(self._mark), "w")


def plain_pickle(payload: Payload) -> bytes:
    return pickle.dumps(payload)


def saved_by_torch(payload: Payload) -> bytes:
    buffer = io.BytesIO()
    torch.save({"0.weight": torch.ones(16, 64), "evil": payload}, buffer)
    return buffer.getvalue()


def saved_by_old_torch(payload: Payload) -> bytes:
    buffer = io.BytesIO()
    torch.save({"evil": payload}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


FORGED = [plain_pickle, saved_by_torch, saved_by_old_torch]
_unpickled: list[str] = []
_listening = False


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _listening and event == "pickle.find_class":
        _unpickled.append(str(arguments))


sys.addaudithook(_hear)


@contextmanager
def nothing_is_unpickled(mark: Path) -> Iterator[None]:
    global _listening
    _unpickled.clear()
    _listening = True
    try:
        yield
    finally:
        _listening = False
    assert _unpickled == []
    assert not mark.exists()


def test_the_payload_would_run_if_it_were_read(tmp_path: Path) -> None:
    """Else the tests below prove nothing."""
    mark = tmp_path / "mark"
    with pytest.raises(AssertionError), nothing_is_unpickled(mark):
        pickle.loads(plain_pickle(Payload(mark))).close()
    assert mark.exists()


@pytest.mark.parametrize("forge", FORGED)
def test_forged_weights_are_refused_and_do_not_run(forge: Callable[[Payload], bytes], tmp_path: Path) -> None:
    mark, weights = tmp_path / "mark", tmp_path / "weights.pt"
    weights.write_bytes(forge(Payload(mark)))
    task = replace(digits(), test_loader=digits().val_loader)
    with (
        nothing_is_unpickled(mark),
        pytest.raises(RecordError, match="cannot read the weights"),
    ):
        evaluate(task, weights, torch.device("cpu"))


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a study that is `done`, of one that was cut short, `cut`, and of a range test, `sweep`."""
    home = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSEARCH_HOME", str(home))
        task: Any = load_task(*SOURCE)
        study(task, "done", source=SOURCE)
        with pytest.raises(KeyboardInterrupt):
            study(task, "cut", source=SOURCE, progress=Ends("confirm", interrupt, "cut"))
        patch.chdir(home)
        lrsearch.range_test(task, out=home / "sweep", steps=40, tracking_uri=NOWHERE, progress=False)
    return home


@pytest.fixture
def copied(studies: Path, home: Path) -> Path:
    """A copy of it all, which a test may forge."""
    shutil.copytree(studies, home, ignore=shutil.ignore_patterns("*.lock"))
    return home


def files_of(kind: str, folder: StudyFolder) -> list[Path]:
    found = {
        "journals": folder.journals(),
        "weights": sorted(folder.checkpoints.rglob("*")),
        "json": [*folder.path.glob("*.json"), folder.holder],
        "database": [folder.optuna_db],
    }
    return [path for path in found[kind] if not path.is_dir()]


COMMANDS = [
    *(("status",), ("report", "done"), ("reproduce", "done"), ("resume", "done", *WORDS)),
    *(("resume", "cut", *WORDS), ("report", "cut"), ("compare", "done", "cut"), ("compare", "cut", "done")),
]


@pytest.mark.parametrize("kind", ["journals", "weights", "json", "database"])
def test_a_folder_of_forged_files_runs_nothing(kind: str, copied: Path, cli: Command, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name in ("done", "cut", "sweep"):
        for path in files_of(kind, StudyFolder(copied / name)):
            path.write_bytes(FORGED[len(path.name) % 3](Payload(mark)))
    with nothing_is_unpickled(mark):
        for words in COMMANDS:
            answer = cli(*words)
            assert answer.code in (0, 1, 2)
            assert "Traceback" not in answer.err
        for name in ("done", "cut", "sweep"):
            with suppress(RecordError):
                lrsearch.load(name)


@pytest.mark.parametrize("forge", FORGED)
def test_a_forged_checkpoint_is_refused_and_does_not_run(
    forge: Callable[[Payload], bytes], copied: Path, tmp_path: Path
) -> None:
    """Its name and its hash are right: nobody needs a secret to make them."""
    mark, folder = tmp_path / "mark", StudyFolder(copied / "cut")
    (key,) = [k for run in runs(folder) if (k := run.start.tags.get("lrsearch.trial_key")) and not run.result]
    forged = forge(Payload(mark))
    folder.checkpoints.mkdir(exist_ok=True)
    path = folder.checkpoints / f"{key}-10-{hashlib.sha256(forged).hexdigest()[:16]}.ckpt"
    path.write_bytes(forged)
    with nothing_is_unpickled(mark), pytest.raises(RecordError, match=r"the checkpoint .* cannot be read"):
        study(load_task(*SOURCE), "cut", source=SOURCE, resume=True)


def test_forged_weights_of_a_study_that_goes_on_do_not_run(copied: Path, tmp_path: Path) -> None:
    """The winner's weights are read at the end, for the test data."""
    mark = tmp_path / "mark"
    task = replace(load_task(*SOURCE), test_loader=digits().val_loader)  # type: ignore[type-var]
    result = study(task, "cut", resume=True)
    (winner, *_) = result.trials_of(result.answer.winner)
    weights = weights_path(result.folder, winner.spec)
    weights.write_bytes(saved_by_torch(Payload(mark)))
    for path in result.folder.journals():  # as if it had died just before its end
        if path.name.startswith("cut-"):
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    result.folder.result.unlink()
    with nothing_is_unpickled(mark), pytest.raises(RecordError, match="cannot read the weights"):
        study(task, "cut", resume=True)


# --- names from outside -----------------------------------------------------------------------------------

NAMES = [
    *("../evil", "..", ".", "a/../../evil", "/evil", "./evil/", "a\0b", "a\nb", "a\rb", "\x1b[31mred"),
    *("\u202eevil", "a\ud800", "C:evil", "a|b", "*", "a" * 201, "a/" + "b" * 300, "", " ", "~/../evil/"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_leads_nowhere(name: str, cli: Command, tmp_path: Path, home: Path) -> None:
    home.mkdir()
    before = sorted(tmp_path.rglob("*"))
    for words in (
        ("search", "digits", "--name", name, *WORDS),
        *((command, name) for command in ("resume", "report", "status", "sync", "reproduce", "ui")),
        ("rm", name, "--yes"),
        ("compare", name, name),
    ):
        answer = cli(*words)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), words
        assert answer.err.removesuffix("\n").isprintable(), words
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_in_the_folder_that_is_none_is_not_shown(cli: Command, home: Path) -> None:
    (home / "\x1b[31mred" / "journal").mkdir(parents=True)
    (home / "good" / "journal").mkdir(parents=True)
    answer = cli("report", "bad")
    assert "there are good\n" in answer.err
    assert "\x1b" not in answer.err


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a\0b", "..", "", "a\nb/c", "x" * 300, "\ud800"])
def test_the_name_of_a_run_is_no_path(name: str) -> None:
    folder = create_folder("study")
    with RunJournal.create(folder, RunStart(name.encode("utf-8", "replace").decode(), "trial", "s")) as run:
        assert run.path.resolve().parent == folder.journal.resolve()
        assert re.fullmatch(r"[\w.-]{1,80}", run.path.name)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * 300, "loop/x", "../x", "/etc/passwd", "out/passwd"])
def test_a_file_named_in_a_journal_lies_in_the_folder(path: str) -> None:
    folder = create_folder("study")
    (folder.path / "loop").symlink_to("loop")
    (folder.path / "out").symlink_to("/etc")
    with pytest.raises(InputError, match="not a file inside"):
        folder.inside(path)


def test_what_is_no_study_is_not_removed(cli: Command, tmp_path: Path) -> None:
    """`/var/log/journal` is a folder that many machines have."""
    log = tmp_path / "log"
    (log / "journal" / "0123abcd").mkdir(parents=True)
    (log / "messages").write_text("precious")
    answer = cli("rm", f"{log}/", "--yes")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert (log / "messages").read_text() == "precious"


# --- markup from outside ----------------------------------------------------------------------------------

MARKUP = (
    "</td></table></title><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>"
    "&lt;b&gt; ![](http://evil.example/y) [click](http://evil.example/z) <http://evil.example/w> "
    "`code` **bold** \n\n# heading\n- item {{ 7*7 }} https://evil.example/v"
)
PLAIN = {"html", "head", "body", "table", "caption", "thead", "tbody", "tr", "td", "th", "ul", "li", "p"}


def spoiled_study() -> tuple[Any, Any]:
    """A study's stages and answer, with markup in every text that comes from outside."""
    stages = list(stages_of())
    evil = MetricSummary(1.0, 1.0, 1.0, 1.0)
    good = stages[1].trials[0]
    broken = replace(trial("coarse", "constant", 0.011), status="failed", error=MARKUP, cause=MARKUP)
    marked = replace(good, metrics={**good.metrics, MARKUP: evil}, warnings=(MARKUP,))
    stages[1] = replace(stages[1], trials=(marked, *stages[1].trials[1:], broken))
    answer = answer_of(stages_of(), warnings={"trials_failed": MARKUP}, reason=MARKUP)
    finalists = tuple(replace(finalist, name=MARKUP, gain=None) for finalist in answer.finalists)
    return stages, replace(answer, metric=MARKUP, finalists=finalists)


def test_a_notebook_shows_text_as_text() -> None:
    stages, answer = spoiled_study()
    data = data_of()
    assert data.suggestion is not None
    suggestion = replace(data.suggestion, reason=MARKUP)
    compared = [replace(s, name=f"{s.name}{MARKUP}", task=f"{s.name}{MARKUP}") for s in studies_of()]
    for shown in (
        study_html(answer, stages, MARKUP),
        *(stage._repr_html_() for stage in stages),
        range_test_table(data.curves, suggestion, MARKUP).to_html(),
        suggestion._repr_html_(),
        comparison_html(compare_studies(compared)),
    ):
        assert {element.tag for element in html5lib.parse(shown, namespaceHTMLElements=False).iter()} <= PLAIN
        assert "<script" not in shown


def test_the_comparisons_page_shows_text_as_text() -> None:
    compared = [
        replace(s, name=f"{s.name}{MARKUP}", params={**s.params, MARKUP: f"{s.name}{MARKUP}"})
        for s in studies_of()
    ]
    shown = comparison_page(compare_studies(compared), {"responses": b""}, str)
    tree = html5lib.parse(shown, namespaceHTMLElements=False)
    assert not {"script", "iframe", "a", "link", "b1"} & {element.tag for element in tree.iter()}
    sources = [element.get("src") for element in tree.iter("img")]
    assert sources == ["data:image/png;base64,"]
    assert not [name for element in tree.iter() for name in element.attrib if str(name).startswith("on")]


def test_the_description_in_mlflow_shows_text_as_text() -> None:
    _, answer = spoiled_study()
    plan = plan_of().with_changes(objective={"metric": "val/loss"})
    text = describe_study(answer, plan, {"winner": "#/runs/1"})
    shown = MarkdownIt("commonmark", {"html": True}).enable("linkify", ignoreInvalid=True).render(text)
    tree = html5lib.parse(shown, namespaceHTMLElements=False)
    tags = [element.tag for element in tree.iter()]
    assert not {"script", "img", "table", "h1", "title"} & set(tags)
    assert [element.get("href") for element in tree.iter("a")] == ["#/runs/1"]
    assert "alert(1)" in "".join(tree.itertext())


@pytest.mark.parametrize("metric", ["val/loss", "val/top_5*"])
def test_an_ordinary_description_reads_as_it_did(metric: str) -> None:
    answer = replace(answer_of(stages_of()), metric=metric, warnings={"edge": "the best lr is at an end"})
    shown = MarkdownIt("commonmark").render(describe_study(answer, plan_of(), {}))
    said = "".join(html5lib.parse(shown, namespaceHTMLElements=False).itertext())
    assert f"{metric} {answer.objective:.4g}" in said
    assert "edge: the best lr is at an end" in said


# --- secrets ----------------------------------------------------------------------------------------------

SECRET, TOKEN, PRIVATE = "hunter2%40x", "t0psecret", "a-private-value"
URI = f"http://ada:{SECRET}@127.0.0.1:9/sub?api_token={TOKEN}"
TASK = """
import torch
from torch import nn
import lrsearch

numbers = torch.Generator().manual_seed(0)
rows = torch.randn(64, 4, generator=numbers)
batches = [(part, (part[:, 0] > 0).long()) for part in rows.split(8)]

def task(source: str = "none"):
    return lrsearch.Task(
        model=lambda: nn.Linear(4, 2),
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        loss=nn.CrossEntropyLoss(), train_loader=batches, val_loader=batches,
    )
"""


def secrets_of(text: str) -> list[str]:
    return [secret for secret in (SECRET, "hunter2@x", TOKEN, PRIVATE) if secret in text]


def test_no_output_and_no_file_holds_a_password_or_the_environment(
    cli: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("small.py").write_text(TASK)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PRIVATE)
    monkeypatch.setenv("SOMETHING_ELSE", PRIVATE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    where = ("--tracking-uri", URI)
    short = ("--steps", "40", "--plan", "quick")
    for words in (
        ("search", "small.py:task", "--name", "a", *short, *where, "--sync-timeout", "0", "--tag", "team=x"),
        ("search", "small.py:task", "--name", "b", *short, *where, "--sync-timeout", "0", "--json"),
        ("resume", "a", *where, "--sync-timeout", "0", "--json"),
        ("range-test", "small.py:task", "--out", "sweep", *where, "--sync-timeout", "0"),
        ("range-test", "small.py:task", "--out", "swept", *where, "--sync-timeout", "0", "--json"),
        ("sync", "a", *where, "--timeout", "5"),
        ("report", "a"),
        ("status",),
        ("status", "a", "--json"),
        ("compare", "a", "b", "--out", "both.html"),
        ("reproduce", "a"),
        ("ui", "a", *where),
        ("ui", "a"),
    ):
        answer = cli(*words)
        assert answer.code == 0, answer
        assert not secrets_of(answer.out + answer.err), words
    files = [path for place in (home, Path("sweep"), Path("swept")) for path in place.rglob("*")]
    for path in [*files, Path("both.html")]:
        if path.is_file():
            assert not secrets_of(path.read_text(errors="replace")), path
    result = lrsearch.load("a")
    assert not secrets_of(f"{result!r} {result.tracking_uri} {result.to_dict()} {result._repr_html_()}")
    (journal, *_) = StudyFolder(home / "a").journals()
    assert '"environment":{"OMP_NUM_THREADS":"1"' in journal.read_text()
    assert "MLFLOW" not in journal.read_text()


@pytest.mark.parametrize("command", ["search", "range-test", "sync"])
def test_a_password_in_the_environments_tracking_uri_is_not_shown(
    command: str, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("small.py").write_text(TASK)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    words = {
        "search": ("search", "small.py:task", "--name", "a", "--steps", "40", "--plan", "quick"),
        "range-test": ("range-test", "small.py:task", "--out", "sweep"),
        "sync": ("range-test", "small.py:task", "--out", "sweep", "--json"),
    }
    answer = cli(*words[command], "--sync-timeout", "3")
    if command == "sync":
        answer = cli("sync", "./sweep", "--timeout", "3")
    said = answer.out + answer.err
    assert "127.0.0.1:9" in said
    assert not secrets_of(said)


def test_a_password_in_an_argument_of_the_task_is_not_recorded(cli: Command) -> None:
    Path("small.py").write_text(TASK)
    source = f"postgresql://ada:{SECRET}@host/data"
    words = ("range-test", "small.py:task", "--set", f"source={source}", "--out", "sweep", *WORDS)
    answer = cli(*words)
    assert answer.code == 0
    for path in Path("sweep").rglob("*"):
        if path.is_file():
            assert not secrets_of(path.read_text(errors="replace")), path
    journals = "".join(path.read_text() for path in StudyFolder(Path("sweep").absolute()).journals())
    assert '"source":"postgresql://ada@host/data"' in journals


def test_folders_are_for_their_owner_alone_whatever_the_umask(home: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        study(digits(), "private")
        lrsearch.range_test(digits(), steps=40, out=tmp_path / "sweep", tracking_uri=NOWHERE, progress=False)
    finally:
        os.umask(before)
    for path in (home, home / "private", home / "private" / "journal", tmp_path / "sweep"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_mlflow_is_served_on_this_machine_alone_and_no_password_stands_in_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """tests/cli/test_overview.py asks a real one from another address."""
    called: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], *, env: dict[str, str], check: bool) -> subprocess.CompletedProcess[str]:
        called.append((command, env))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    store = f"postgresql://ada:{SECRET}@db/mlflow"
    said: list[str] = []
    serve(None, store, 5001, said.append)
    ((command, environment),) = called
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert not secrets_of(" ".join([*command, *said]))
    assert environment["MLFLOW_BACKEND_STORE_URI"] == store
