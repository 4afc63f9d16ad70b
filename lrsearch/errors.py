"""The tree of errors: every failure that lrsearch itself announces is an `LrsearchError`."""

from __future__ import annotations


class LrsearchError(Exception):
    """Base of all errors raised by lrsearch."""


class InputError(LrsearchError, ValueError):
    """Something handed to lrsearch is wrong; raised before any training is done.

    The message is one line: the argument, its value, what is wrong with it, and the mend.
    """

    def __init__(self, argument: str, value: object, problem: str, mend: str) -> None:
        self.argument = argument
        self.value = value
        self.problem = problem
        self.mend = mend
        super().__init__(_printable(f"{argument}={_shown(value)}: {problem}; {mend}"))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, object, str, str]]:
        """So that it passes from a worker process, where one raised it."""
        return type(self), (self.argument, self.value, self.problem, self.mend)


class StopTrial(LrsearchError):  # noqa: N818  # no error of anybody's: a signal to let through
    """A trial has diverged: raised by its report, to end the training function."""


class StudyError(LrsearchError):
    """A study cannot go on: what its trials showed leaves nothing to search."""


class RecordError(LrsearchError):
    """The local record of a run cannot be written or read."""


class TrackingError(LrsearchError):
    """The MLflow tracking server refused what it was sent."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a report of one line."""
    return next(iter(str(error).strip().splitlines()), "no message")


def a_kind_of(value: object) -> str:
    """The type of a value with its article: ``an int``, ``a Tensor``."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: the allocators of the CPU and of MPS raise a plain RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in said or "out of memory" in said)


def _printable(text: str) -> str:
    """The text in one line: what cannot be printed (in a name from outside) is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
