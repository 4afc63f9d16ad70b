"""Faults of the machine: a clock set back, a disk that is full, a folder that cannot be written."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def mounted_disk(place: Path, megabytes: int) -> Iterator[None]:
    """A disk of this size at this place; OSError where none can be mounted."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    mounted = subprocess.run(words, capture_output=True, check=False)
    if mounted.returncode:
        raise OSError(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leave: int) -> None:
    """Fill a disk up to so many bytes."""
    with (disk / "filler").open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        file.truncate(max(0, file.tell() - leave))


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Without root's power over what is read-only, which this thread may take back (capabilities(7))."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, in two halves
    if libc.capget(header, before):
        pytest.skip("this process cannot lay down root's power")
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


DAY = 86_400.0


class Clock:
    """The clock of this process, which can be set back."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.behind = 0.0
        now, now_ns = time.time, time.time_ns
        patch.setattr(time, "time", lambda: now() - self.behind)
        patch.setattr(time, "time_ns", lambda: now_ns() - int(self.behind * 1e9))
