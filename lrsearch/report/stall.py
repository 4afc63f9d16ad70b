"""Says where a training stands still: a hanging loader holds up the thread that trains, so another looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

_STALLED_S = 30.0
"""A training that has recorded no step for so long is said to have none."""
_WATCH_S = 1.0
"""How often that is looked at."""


class StallWatch:
    """Calls `tell`, from a thread of its own, while nothing is heard of a training; a context manager.

    Where `redraws`, as in a terminal, it does so every second; elsewhere, as in a log, each time the silence
    is twice as long as any before.
    """

    def __init__(self, tell: Callable[[], None], *, redraws: bool) -> None:
        self._tell = tell
        self._redraws = redraws
        self._heard: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lrsearch-progress", daemon=True)

    def heard(self) -> None:
        """A training runs, and has just done something."""
        self._heard = time.monotonic()

    def rest(self) -> None:
        """No training runs."""
        self._heard = None

    @property
    def said(self) -> str:
        """Such as ``, no step for 40 s (since 09:30:00 UTC)``; empty where there is nothing to say."""
        silence = self._silence()
        if silence is None:
            return ""
        since = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() - silence))
        return f", no step for {silence:.0f} s (since {since})"

    def __enter__(self) -> StallWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        longest = 0.0
        while not self._ended.wait(_WATCH_S):
            silence = self._silence()
            if silence is not None and (self._redraws or silence >= 2 * longest):
                longest = silence
                self._tell()

    def _silence(self) -> float | None:
        heard = self._heard
        seconds = 0.0 if heard is None else time.monotonic() - heard
        return seconds if heard is not None and seconds >= _STALLED_S else None
