"""Which training next: the one whose result is worth most to the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lrsearch.core.family import Family
from lrsearch.core.surface import Observation, Place, Surface

LOWEST_LR, HIGHEST_LR = 1e-12, 1e6
"""No lr beyond is ever tried."""
_BELOW, _ABOVE = 6, 8
"""Half octaves around the best lr that are looked at: decay moves it up, if at all."""
_NEAR = 0.2
"""Octaves; a training of the same family that is nearer to one before tells little new."""


@dataclass(frozen=True)
class Question:
    """What is known, and what may be trained next and answered in the end.

    `seen` holds at least one training with a loss, `way` is that from the untrained to the best one. A
    training is asked for under one of the `families`, an answer under one of `answers`; both at lrs from
    `low` to `high`.
    """

    seen: tuple[Observation, ...]
    way: float
    families: tuple[Family, ...]
    answers: tuple[Family, ...]
    low: float = LOWEST_LR
    high: float = HIGHEST_LR


def choose(question: Question) -> Place | None:
    """Return the place of the largest knowledge gradient that is new; None where nothing new is left.

    Lrs half an octave apart are looked at, from three octaves below the best one to four above it, under no
    family at or above an lr that diverged there.
    """
    seen = question.seen
    best = min((o.objective, o.lr) for o in seen if not o.diverged and o.objective is not None)[1]
    grid = [best * 2 ** (k / 2) for k in range(-_BELOW, _ABOVE + 1)]
    lrs = [lr for lr in grid if question.low <= lr <= question.high]
    trainings = [Place(lr, f) for f in question.families for lr in lrs if _is_new(lr, f, seen)]
    if not trainings:
        return None
    surface = Surface(seen, question.way)
    worth = surface.knowledge_gradient(trainings, [Place(lr, f) for f in question.answers for lr in lrs])
    return trainings[int(worth.argmax())]


def _is_new(lr: float, family: Family, seen: Sequence[Observation]) -> bool:
    own = [o for o in seen if o.family == family]
    apart = all(abs(math.log2(lr / o.lr)) > _NEAR for o in own)
    return apart and all(lr < o.lr for o in own if o.diverged)
