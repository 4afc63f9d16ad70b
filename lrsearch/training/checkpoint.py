"""The checkpoints of one trial: written whole or not at all, known by their hash, the last two kept."""

from __future__ import annotations

import hashlib
import math
import re
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

import torch

from lrsearch.core.divergence import DivergenceRule
from lrsearch.errors import InputError, RecordError, first_line
from lrsearch.files import UNFINISHED, whole_file
from lrsearch.training.batches import Batches
from lrsearch.training.loop import Progress
from lrsearch.training.portable_state import RandomStates
from lrsearch.training.signals import DeferredSignals
from lrsearch.training.tensor_store import write_tensors
from lrsearch.training.trial_log import TrialLog

EVERY_S = 60.0
_KEPT = 2
_NAME = re.compile(r"(?P<key>[0-9a-f]+)-(?P<step>[0-9]+)-(?P<hash>[0-9a-f]{16})\.ckpt")
_MEND = "remove it, and the trial begins anew"


@dataclass(frozen=True)
class Checkpoint:
    """What was kept of a trial after `step` updates."""

    step: int
    state: Mapping[str, Any]
    path: Path

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Turn what is raised into a RecordError: the trial cannot go on from here."""
        try:
            yield
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise RecordError(
                f"the checkpoint {self.path} does not fit the task as it is now ({reason}); {_MEND}"
            ) from error


class Checkpoints:
    """The checkpoints of the trial `key` in `folder`: one is due `every` so many seconds, and on a signal.

    `flush` is called before each: it brings what is recorded of the trial to the disk, so that no checkpoint
    knows of a step that the record has lost. A file is named ``<key>-<step>-<hash>.ckpt``, by the first 16
    hexadecimal digits of its content's SHA-256.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        every: float = EVERY_S,
        *,
        flush: Callable[[], None] | None = None,
        signals: DeferredSignals | None = None,
    ) -> None:
        self._folder = folder
        self._key = key
        self._every = every
        self._flush = flush
        self._signals = signals or DeferredSignals()
        self._due_at = time.monotonic() + every
        self._read_back = self._refused = False

    def due(self) -> bool:
        """Whether it is time for one, or a signal waits; asked at every step."""
        return time.monotonic() >= self._due_at or self._signals.came is not None

    def write(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep `state` as what there is after `step` updates.

        State that ``torch.load(weights_only=True)`` could not read is not kept, and warned of once: the first
        checkpoint is read back. Raises RecordError where a checkpoint cannot be written, for instance on a
        full disk: the journal lies on the same one, and to go on without either would lose what is done. The
        checkpoints before it stay.
        """
        if self._refused:
            return
        if self._flush is not None:
            self._flush()
        try:
            path = self._write(step, state)
            if not self._read_back:
                torch.load(path, map_location="cpu", weights_only=True)
                self._read_back = True
        except NotImplementedError as error:  # a RuntimeError, too: of a tensor that torch cannot write
            self._refuse(error)
        except (OSError, RuntimeError) as error:
            raise RecordError(
                f"the checkpoint of step {step} cannot be written in {self._folder}: {first_line(error)}"
            ) from error
        except Exception as error:
            self._refuse(error)
        self._due_at = time.monotonic() + self._every

    @property
    def stopping(self) -> bool:
        """Whether a signal waits."""
        return self._signals.came is not None

    def stop_if_asked(self) -> None:
        """Let a signal that waits take effect."""
        if self.stopping:
            self._signals.deliver()

    def newest(self) -> Checkpoint | None:
        """The last checkpoint that is whole; damaged ones are warned of and removed.

        Raises RecordError for one that cannot be read and is not damaged.
        """
        for step, path in self._files():
            if _is_whole(path):
                return Checkpoint(step, _load(path), path)
            warnings.warn(
                f"the checkpoint {path} is damaged and passed over: its content has another hash",
                UserWarning,
                stacklevel=2,
            )
            _remove(path)
        return None

    def remove(self) -> None:
        """Remove them all: the trial has ended."""
        for _, path in self._files():
            _remove(path)

    def _files(self) -> list[tuple[int, Path]]:
        """Their steps and paths, the newest first."""
        own = [(int(name["step"]), path) for name, path in _found(self._folder) if name["key"] == self._key]
        return sorted(own, reverse=True)

    def _write(self, step: int, state: Mapping[str, Any]) -> Path:
        def name(file: BufferedRandom) -> str:
            return f"{self._key}-{step}-{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}.ckpt"

        self._folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self._folder / f"{self._key}-{step}", name) as file:
            write_tensors(dict(state), file)
        for _, old in self._files()[_KEPT:]:
            old.unlink()
        return self._files()[0][1]

    def _refuse(self, error: Exception) -> None:
        self._refused = True
        self._every = math.inf
        warnings.warn(
            f"no checkpoints of trial {self._key}, which begins anew if cut short: {first_line(error)}",
            UserWarning,
            stacklevel=4,
        )
        self.remove()


class TrialCheckpoints:
    """A trial's checkpoints as its training sees them: each holds what the trial's log has seen, too."""

    def __init__(
        self, files: Checkpoints, log: TrialLog, rule: DivergenceRule, loaders: Iterable[object]
    ) -> None:
        self.random_states = RandomStates(loaders)
        self._files = files
        self._log = log
        self._rule = rule
        self._found = files.newest()
        self.resumes = self._found is not None

    def resume(self, progress: Progress) -> int:
        """Put everything back as the newest checkpoint has it; returns its step, 0 without one.

        Raises RecordError where it does not fit the task, and what the task's loader raises.
        """
        found, self._found = self._found, None
        if found is None:
            return 0
        state = found.state
        with found.fitting():
            progress.load_state_dict(state["training"])
            self._log.load_state_dict(state["log"])
            self._rule.load_state_dict(state["rule"])
        progress.batches.skip()
        with found.fitting():
            self.random_states.load_state_dict(state["random"])
        return found.step

    def wants(self, batches: Batches) -> bool:
        """Whether a checkpoint is due and can be made, or the training is to stop."""
        return self._files.due() and (self._files.stopping or batches.at_place())

    def keep(self, step: int, progress: Progress) -> None:
        """Write a checkpoint where one can be made, and stop the training if a signal waits."""
        if progress.batches.at_place():
            state = {
                "training": progress.state_dict(),
                "log": self._log.state_dict(),
                "rule": self._rule.state_dict(),
                "random": self.random_states.take(),
            }
            self._files.write(step, state)
        self._files.stop_if_asked()


def keep_only(folder: Path, keys: Container[str]) -> None:
    """Remove the checkpoints of all trials but these, and what a process that was killed left unfinished."""
    for name, path in list(_found(folder)):
        if name["key"] not in keys:
            _remove(path)
    for path in folder.glob(f".*{UNFINISHED}"):
        _remove(path)


def check_every(seconds: float) -> None:
    """Raise InputError for a time between checkpoints that is none."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise InputError(
            "checkpoint_every", seconds, "is no time between checkpoints", "give a number of seconds above 0"
        )


def _found(folder: Path) -> Iterator[tuple[re.Match[str], Path]]:
    for path in folder.glob("*.ckpt"):
        if name := _NAME.fullmatch(path.name):
            yield name, path


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecordError(f"the checkpoint {path} cannot be read: {error.strerror or error}") from error
    return path.stem.endswith(f"-{digest[:16]}")


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RecordError(f"the checkpoint {path} cannot be read: {first_line(error)}; {_MEND}") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(f"{path} cannot be removed: {error.strerror or error}") from error
