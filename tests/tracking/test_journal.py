from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import socket
import string
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrsearch.errors import InputError, RecordError
from lrsearch.tracking.entries import End, Points, Resumed, RunStart, Summary, Writer, from_line, to_line
from lrsearch.tracking.folder import StudyFolder, create_folder
from lrsearch.tracking.journal import BLOCK, RunJournal
from lrsearch.tracking.reading import Tail, read_run, read_start
from tests.tracking.runs import finished, journal_speed, metrics_at, record, trial

NAMES = st.text(string.ascii_letters + string.digits + "_-. ", min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
METRICS = st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=4)
PARAMS = st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), NUMBERS, st.booleans(), st.none()))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), NUMBERS, st.text()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
RESULTS = st.dictionaries(st.text(), JSON, max_size=4)
DEAD = Writer(socket.gethostname(), os.getpid(), -100.0)  # our number, but another process had it


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    points=st.lists(METRICS, max_size=120),
    params=PARAMS,
    tags=st.dictionaries(st.text(), st.text()),
    summary=METRICS,
    result=RESULTS,
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    points: list[dict[str, float]],
    params: dict[str, str | int | float | bool | None],
    tags: dict[str, str],
    summary: dict[str, float],
    result: dict[str, object],
) -> None:
    folder = create_folder("s", out=tmp_path_factory.mktemp("study"))
    start = RunStart("näme/ %s", "trial", "s", params=params, tags=tags)
    with RunJournal.create(folder, start) as journal:
        for step, metrics in enumerate(points):
            journal.point(step, metrics)
        journal.summary(summary)
        journal.result(result)
    run = read_run(journal.path)
    expected: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in enumerate(points):
        for name, value in metrics.items():
            expected.setdefault(name, []).append((step, value))
    got = {name: sorted(zip(*run.metric(name), strict=True)) for name in run.metric_names()}
    assert (run.start, run.params, run.tags, run.summary, run.result) == (
        start,
        params,
        tags,
        summary,
        result,
    )
    assert got == expected
    assert run.damage == []
    assert run.end is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_value_that_is_not_finite_is_recorded(folder: StudyFolder, value: float) -> None:
    journal = record(folder, 3)
    with pytest.raises(RecordError, match="step 4 has a value that is not finite"):
        journal.point(4, {"train/loss": value})
    with pytest.raises(RecordError, match="Summary cannot be recorded"):
        journal.summary({"objective": value})
    with pytest.raises(RecordError, match="Result cannot be recorded"):
        journal.result({"seconds": value})
    journal.close()
    assert len(read_run(journal.path).metric("train/loss")[0]) == 3


@pytest.mark.parametrize("name", ["acc=1", "../x", "/x", "a//b", "a/", "", "x" * 251, "ä?"])
def test_a_metric_that_mlflow_cannot_show_is_refused(folder: StudyFolder, name: str) -> None:
    with RunJournal.create(folder, trial()) as journal, pytest.raises(InputError, match="MLflow cannot show"):
        journal.point(1, {name: 1.0})


def test_times_are_fixed_when_a_point_is_made_and_never_go_back(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = record(folder, 10)
    monkeypatch.setattr("time.time", lambda: 0.0)  # a clock that jumps back to 1970
    for step in range(11, 21):
        journal.point(step, metrics_at(step))
    journal.end("FINISHED")
    journal.close()
    run = read_run(journal.path)
    times = list(run.groups[0].ms)
    assert run.end is not None
    assert times == sorted(times)
    assert times[0] >= run.start.started - 1
    assert run.end.ms >= times[-1]


def test_points_of_slow_steps_do_not_wait(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr("lrsearch.tracking.journal.time.monotonic", lambda: float(next(seconds)))
    journal = RunJournal.create(folder, trial())
    journal.point(1, {"lr": 0.1})
    assert list(read_run(journal.path).metric("lr")[0]) == [1]
    journal.close()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, "FINISHED", None),
        (ValueError("bad batch"), "FAILED", "bad batch"),
        (KeyboardInterrupt(), "KILLED", None),
    ],
)
def test_a_run_ends_as_it_really_ended(
    folder: StudyFolder, error: BaseException | None, status: str, said: str | None
) -> None:
    try:
        with RunJournal.create(folder, trial()) as journal:
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    end = read_run(journal.path).end
    assert end is not None
    assert end.status == status
    assert said is None or said in (end.error or "")


def _cut(data: bytes) -> bytes:
    return data[:-40]


def _flip(data: bytes) -> bytes:
    middle = data.index(b'"lr":[') + 20
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _half_a_block(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    lines[3] = lines[3][: len(lines[3]) // 2] + b"\n"
    return b"".join(lines)


def _lost_newline(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join([*lines[:3], lines[3].rstrip(b"\n"), *lines[4:]])


def _first_line_gone(data: bytes) -> bytes:
    return b"\xff" * 10 + data[10:]


def _nothing(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize(
    ("harm", "left", "said"),
    [
        (_nothing, 4 * BLOCK, []),
        (_cut, 4 * BLOCK, ["the last line, at byte .* is unfinished"]),
        (_flip, 3 * BLOCK, ["the line at byte .* is damaged"]),
        (_half_a_block, 3 * BLOCK, ["the line at byte .* is damaged"]),
        (_lost_newline, 2 * BLOCK, ["the line at byte .* is damaged"]),
        (_first_line_gone, 4 * BLOCK, ["the line at byte 0 is damaged"]),
    ],
)
def test_damage_is_said_and_the_rest_used(
    folder: StudyFolder, harm: Callable[[bytes], bytes], left: int, said: list[str]
) -> None:
    path = finished(folder, 4 * BLOCK, dataclasses.replace(trial(), writer=DEAD)).path
    path.write_bytes(harm(path.read_bytes()))
    run = read_run(path)
    assert len(run.metric("lr")[0]) == left
    assert run.start.params == {"lr": 0.1, "seed": 0}
    assert len(run.damage) == len(said)
    assert all(re.search(pattern, line) for pattern, line in zip(said, run.damage, strict=True))


def test_a_journal_without_a_beginning_is_an_error(folder: StudyFolder) -> None:
    path = folder.journal / "x.jsonl"
    path.write_bytes(b"nothing of ours\n")
    with pytest.raises(RecordError, match="has no beginning"):
        read_run(path)


def test_the_unfinished_line_of_a_live_process_is_no_damage(folder: StudyFolder) -> None:
    journal = record(folder, BLOCK)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + whole[-100:-50])
    assert read_run(journal.path).damage == []
    journal.close()


def test_a_tail_gives_each_record_once_while_the_journal_grows(folder: StudyFolder) -> None:
    journal = record(folder, 0)
    tail = Tail(journal.path)
    counts = []
    for part in range(4):
        for step in range(part * BLOCK, (part + 1) * BLOCK):
            journal.point(step, {"lr": 0.1})
        counts.append(len(list(tail.read())))
    journal.close()
    assert counts == [3, 1, 1, 1]  # the start stands twice


@settings(max_examples=150, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=200), st.recursive(NUMBERS, st.lists).map(lambda x: json.dumps(x).encode())
    )
)
def test_lines_of_anything_raise_nothing_but_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_line(b"%08x %s" % (zlib.crc32(data), data))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_record_with_anything_for_a_field_is_read_or_refused(data: st.DataObject) -> None:
    kind = data.draw(
        st.sampled_from(
            ["points", "summary", "params", "tags", "artifact", "result", "end", "resumed", "start"]
        )
    )
    fields = [
        "step",
        "ms",
        "metrics",
        "params",
        "tags",
        "path",
        "status",
        "error",
        "writer",
        "key",
        "kind",
        "name",
    ]
    fields += ["format", "study", "stage", "parent", "inputs", "provenance", "started", "values"]
    record_ = {name: data.draw(JSON) for name in fields} | {"type": kind}
    text = json.dumps(record_).encode()
    try:
        record_read = from_line(b"%08x %s" % (zlib.crc32(text), text))
    except ValueError:
        return
    assert from_line(to_line(record_read)) == record_read


def test_a_full_disk_is_said_and_leaves_whole_lines(folder: StudyFolder) -> None:
    journal = record(folder, BLOCK)
    size = journal.path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))  # half of the next block fits
    try:
        for step in range(BLOCK - 1):
            journal.point(BLOCK + step, metrics_at(step))
        with pytest.raises(RecordError, match=r"trial-0-\w+\.jsonl cannot be written: "):
            journal.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.end("FAILED", "disk full")
    journal.close()
    run = read_run(journal.path)
    assert run.damage == []
    assert len(run.metric("lr")[0]) == BLOCK


def test_repeated_steps_of_a_resumed_run_keep_their_first_record(folder: StudyFolder) -> None:
    first = record(folder, 70)
    first.close()
    with first.path.open("ab") as file:
        file.write(b"00000000 {half a line")
    with RunJournal.resume(first.path, folder) as again:
        for step in range(61, 101):
            again.point(
                step, {**metrics_at(step), "lr": 99.0, **({"val/loss": 1.0} if step % 20 == 0 else {})}
            )
    run = read_run(first.path)
    steps, lrs = run.metric("lr")
    assert sorted(steps) == list(range(1, 101))
    assert sorted(step for step, lr in zip(steps, lrs, strict=True) if lr == 99.0) == list(range(71, 101))
    assert run.damage == []


def _cut_short(folder: StudyFolder, points: int) -> Path:
    journal = record(folder, points)
    journal.close()
    return journal.path


def test_a_resumed_run_records_what_damage_took(folder: StudyFolder) -> None:
    path = _cut_short(folder, 4 * BLOCK)
    path.write_bytes(_half_a_block(path.read_bytes()))
    with RunJournal.resume(path, folder) as again:
        for step in range(1, 4 * BLOCK + 1):
            again.point(step, metrics_at(step))
    steps, _ = read_run(path).metric("lr")
    assert sorted(steps) == list(range(1, 4 * BLOCK + 1))


def test_a_resumed_run_records_a_metric_it_lacks_at_a_step_it_has(folder: StudyFolder) -> None:
    path = _cut_short(folder, 60)
    with RunJournal.resume(path, folder) as again:
        again.point(50, {**metrics_at(50), "val/loss": 0.5})
    run = read_run(path)
    assert list(run.metric("val/loss")[0]) == [50]
    assert list(run.metric("lr")[0]).count(50) == 1


def test_a_resumed_run_has_each_summary_once_unless_it_has_changed(folder: StudyFolder) -> None:
    path = finished(folder, 1).path
    with RunJournal.resume(path, folder) as again:
        again.summary({"objective": 0.25, "seconds": 2.0})
        again.summary({"objective": 0.2})
    written = [r.metrics for r, _ in Tail(path).read() if isinstance(r, Summary)]
    assert written == [{"objective": 0.25}, {"seconds": 2.0}, {"objective": 0.2}]


def test_who_passed_over_an_unfinished_line_reads_on_behind_it(folder: StudyFolder) -> None:
    path = _cut_short(folder, BLOCK)
    with path.open("ab") as file:
        file.write(b"01234567 {" + b"x" * 3000)
    passed_over = path.stat().st_size
    with RunJournal.resume(path, folder) as again:
        again.point(BLOCK + 1, {"lr": 0.1})
    tail = Tail(path, passed_over)
    assert [type(r) for r, _ in tail.read()] == [Resumed, Points, End]
    assert tail.damage == []
    assert read_run(path).damage == []


@pytest.mark.parametrize(("error", "cleared"), [(None, False), ("KeyboardInterrupt", True)])
def test_a_resumed_run_no_longer_shows_why_it_ended(
    folder: StudyFolder, error: str | None, cleared: bool
) -> None:
    journal = record(folder, 1)
    journal.end("KILLED", error)
    journal.close()
    with RunJournal.resume(journal.path, folder):
        pass
    assert (read_run(journal.path).tags.get("lrsearch.error") == "") == cleared


def test_a_run_that_has_ended_takes_a_tag_and_stays_ended(folder: StudyFolder) -> None:
    path = finished(folder, 1).path
    with RunJournal.amend(path, folder) as journal:
        journal.tags({"lrsearch.winner": "true"})
    run = read_run(path)
    assert run.tags == {"team": "vision", "lrsearch.winner": "true"}
    assert run.end is not None
    assert run.end.status == "FINISHED"


@pytest.mark.parametrize("path", ["../outside.txt", "missing.txt"])
def test_an_artifact_must_be_a_file_of_the_folder(folder: StudyFolder, path: str) -> None:
    (folder.path.parent / "outside.txt").write_text("secret")
    with RunJournal.create(folder, trial()) as journal, pytest.raises(InputError, match=r"^path="):
        journal.artifact(path)


def test_the_speed_of_a_journal_is_measured_on_points_that_come_back(folder: StudyFolder) -> None:
    figures = journal_speed(folder, 20_000)  # raises where a point is lost
    assert set(figures) == {"write_s", "read_s", "point_us"}
    assert min(figures.values()) > 0


def test_a_journal_is_seen_with_its_beginning_or_not_at_all(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that finds a file without one takes it for damaged, however slowly it is written."""
    seen: list[list[Path]] = []
    fsync = os.fsync

    def slow(file: int) -> None:
        seen.append(folder.journals())
        fsync(file)

    monkeypatch.setattr(os, "fsync", slow)
    with RunJournal.create(folder, trial()) as journal:
        assert seen == [[]]
        assert read_start(journal.path) == read_run(journal.path).start
