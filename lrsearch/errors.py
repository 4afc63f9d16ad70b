"""The tree of errors: every failure that lrsearch itself announces is an `LrsearchError`."""

from __future__ import annotations


class LrsearchError(Exception):
    """The base of all errors raised by lrsearch.

    Examples
    --------
    >>> import lrsearch
    >>> try:
    ...     lrsearch.load("no-such-study")
    ... except lrsearch.LrsearchError as error:
    ...     print(type(error).__name__)
    InputError
    """


class InputError(LrsearchError, ValueError):
    """The error for a wrong argument; raised before any training is done.

    Its message is one line: the argument, its value, what is wrong with it, and how to mend it.

    Parameters
    ----------
    argument : str
        The name of the argument.
    value : object
        Its value.
    problem : str
        What is wrong with it.
    mend : str
        How to mend it.

    Examples
    --------
    >>> import lrsearch
    >>> lrsearch.whole(0.5)
    Traceback (most recent call last):
    lrsearch.errors.InputError: whole=0.5: is not callable; hand over a function of all outputs and targets
    >>> try:
    ...     lrsearch.whole(0.5)
    ... except lrsearch.InputError as error:
    ...     print(error.mend)
    hand over a function of all outputs and targets
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
    """The signal that a trial has diverged, raised by `Trial.report` to end the training function.

    Let it pass through. It is an exception, so a ``finally`` in the training function still runs.

    Examples
    --------
    >>> import lrsearch
    >>> issubclass(lrsearch.StopTrial, lrsearch.LrsearchError)
    True
    """


class StudyError(LrsearchError):
    """The error for a study that cannot go on: what its trials showed leaves nothing to search.

    Examples
    --------
    >>> import lrsearch
    >>> issubclass(lrsearch.StudyError, lrsearch.LrsearchError)
    True
    """


class RecordError(LrsearchError):
    """The error for the local record of a run that cannot be written or read.

    Examples
    --------
    Here "half-done" is the name of a study that was interrupted:

    >>> import lrsearch
    >>> try:
    ...     lrsearch.load("half-done")
    ... except lrsearch.RecordError as error:
    ...     print(error)
    half-done is not finished; continue with: lrsearch resume half-done
    """


class TrackingError(LrsearchError):
    """The error for an MLflow tracking server that refused what it was sent.

    Examples
    --------
    >>> import lrsearch
    >>> issubclass(lrsearch.TrackingError, lrsearch.LrsearchError)
    True
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a report of one line."""
    return next(iter(str(error).strip().splitlines()), "no message")


def a_kind_of(value: object) -> str:
    """The type of a value with its article: ``an int``, ``a Tensor``; None is itself."""
    if value is None:
        return "None"
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
