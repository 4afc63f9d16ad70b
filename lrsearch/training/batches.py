"""Batches without end, and the place among them: the loader is started again at its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from lrsearch.errors import InputError
from lrsearch.training.loaders import epoch_number, epoch_setters, is_one_shot
from lrsearch.training.portable_state import RandomStates, State

_END = object()


class Batches:
    """Yields a loader's batches for ever, pass after pass.

    With `random_states` its place can be kept and found again: within a pass where `repeats_passes` holds,
    else only where a pass has ended. Whatever of the loader has `set_epoch` is told another epoch at the
    beginning of each pass, and for each `seed`.

    Raises InputError where the loader has no batch, and where it is a generator that ends before `needed`
    batches.
    """

    def __init__(
        self, loader: Iterable[Any], needed: int, random_states: RandomStates | None = None, seed: int = 0
    ) -> None:
        self._loader = loader
        self._seed = seed
        self._set_epoch = epoch_setters((loader,))
        self._needed = needed
        self._random_states = random_states if repeats_passes(loader) else None
        self._pass: Iterator[Any] = iter(())
        self._ahead: list[Any] = []  # a batch that is drawn and not handed out yet
        self._passes = 0  # that have begun
        self._before = 0  # batches of the passes before this one
        self._taken = 0  # batches of this pass
        self._to_skip = 0
        self._start: State | None = None  # the random states at the beginning of this pass

    @property
    def number(self) -> int:
        """The number of the last batch within its pass, from 1."""
        return self._taken

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Any:
        batch = self._ahead.pop() if self._ahead else next(self._pass, _END)
        while batch is _END:
            self._check_end()
            self._begin_pass()
            batch = next(self._pass, _END)
        self._taken += 1
        return batch

    def at_place(self) -> bool:
        """Whether `place` says now where the next batch is.

        Where passes cannot be repeated, that is where one has ended; to know it the next batch is drawn.
        """
        if self._random_states is not None:
            return True
        if not self._ahead:
            batch = next(self._pass, _END)
            if batch is _END:
                self._pass = iter(())
                return True
            self._ahead.append(batch)
        return False

    def place(self) -> State:
        """Where the next batch is, as plain data; only where `at_place` says so."""
        return {
            "passes": self._passes,
            "before": self._before,
            "taken": self._taken,
            "start": self._start,
        }

    def load_state_dict(self, place: Mapping[str, Any]) -> None:
        """Go to the pass in which `place` was taken; `skip` is then to be called.

        Raises ValueError where the loader is made of other parts, or does not repeat its passes as it did.
        """
        self._passes, self._before, self._taken = place["passes"], place["before"], place["taken"]
        if place["start"] is None:
            return
        if self._random_states is None:
            raise ValueError("the passes over its training loader cannot be repeated")
        if place["start"]:
            self._random_states.load_state_dict(place["start"])
        self._passes -= 1
        self._begin_pass()
        self._before = place["before"]
        self._to_skip = place["taken"]

    def skip(self) -> None:
        """Draw this pass's batches up to the place once more, and drop them; then the random states are
        anybody's.
        """
        while self._taken < self._to_skip:
            next(self)

    def _begin_pass(self) -> None:
        if self._random_states is not None:
            # A list draws nothing, and as one full batch it begins a pass at every step: that is not to cost.
            self._start = {} if isinstance(self._loader, (list, tuple)) else self._random_states.take()
        for set_epoch in self._set_epoch:
            set_epoch(epoch_number(self._seed, self._passes))
        self._pass = iter(self._loader)
        self._passes += 1
        self._before += self._taken
        self._taken = 0

    def _check_end(self) -> None:
        count = self._before + self._taken
        if self._passes and not count:
            raise InputError("train_loader", self._loader, "yields no batch", "hand over a loader with data")
        if self._passes and (not self._taken or is_one_shot(self._loader)):
            raise InputError(
                "train_loader",
                self._loader,
                f"is a generator that ended after {count} {'batch' if count == 1 else 'batches'} "
                f"of the {self._needed} that are needed",
                "hand over a DataLoader or another iterable that can be iterated twice",
            )


def repeats_passes(loader: Iterable[Any]) -> bool:
    """Whether a pass over a loader comes out the same again where its random states are the same.

    So it is for lists, and for a DataLoader over a map-style data set without worker processes.
    """
    if isinstance(loader, DataLoader):
        plain = type(loader).__iter__ is DataLoader.__iter__ and loader.num_workers == 0
        return plain and not isinstance(loader.dataset, IterableDataset)
    return type(loader) in (list, tuple)
