"""SIGINT and SIGTERM that wait until a training stands between two steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class DeferredSignals:
    """Within the block the first signal waits for `deliver`, or the block's end; a second does not.

    What it then does is what it would have done outside: raise KeyboardInterrupt, call the program's own
    handler, or end the process. A signal that is ignored stays so, and outside of the main thread, where no
    signal arrives, the block changes nothing. Processes that are forked in the block (a loader's workers)
    work on after Ctrl-C, which reaches them too, and end at SIGTERM.
    """

    def __init__(self) -> None:
        self.came: signal.Signals | None = None
        """The signal that waits."""
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}
        self._pid = os.getpid()

    def deliver(self) -> None:
        """Give the handlers back, and let a signal that waits take effect."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        if self.came is not None:
            number, self.came = self.came, None
            signal.raise_signal(number)

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _NUMBERS:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deliver()

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        forked = os.getpid() != self._pid
        if forked and number == signal.SIGINT:
            return
        at_once = forked or self.came is not None
        self.came = signal.Signals(number)
        if at_once:
            self.deliver()
