"""The next training: new, below what diverged, within the range, and worth the most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsearch.core.family import CONSTANT, Family, family_of
from lrsearch.core.proposal import Question, choose
from lrsearch.core.surface import Observation, Place, Surface

PROPERTY = settings(derandomize=True, deadline=None, max_examples=25)
WAY = 2.0
LINEAR, WSD = family_of({"name": "linear"}), family_of({"name": "wsd"})
WARMED = family_of({"name": "warmup", "inner": {"name": "linear"}, "fraction": 0.05})
FAMILIES = (CONSTANT, LINEAR, WSD, WARMED)
BEST = 0.01


def trained(lrs: Sequence[float], family: Family = CONSTANT, best: float = BEST) -> list[Observation]:
    """2 % of the way is lost an octave from the best lr."""
    return [Observation(lr, 0.3 + 0.02 * WAY * math.log2(lr / best) ** 2, family=family) for lr in lrs]


def question(
    seen: Sequence[Observation], *families: Family, low: float = 1e-9, high: float = 1e3
) -> Question:
    return Question(tuple(seen), WAY, families or (CONSTANT,), families or (CONSTANT,), low, high)


def is_new(place: Place, seen: Sequence[Observation]) -> bool:
    own = [o for o in seen if o.family == place.family]
    return all(abs(math.log2(place.lr / o.lr)) > 0.2 and not (o.diverged and place.lr >= o.lr) for o in own)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Any trainings, of which some diverged, within any range."""
    lrs = st.floats(-12, 0).map(lambda x: 2.0**x)
    seen = draw(
        st.lists(
            st.builds(
                Observation,
                lrs,
                st.floats(0, 2),
                st.integers(0, 2),
                st.sampled_from([False, False, True]),
                st.sampled_from(FAMILIES),
            ),
            max_size=8,
        )
    )
    families = tuple(draw(st.sets(st.sampled_from(FAMILIES), min_size=1)))
    low, high = sorted([draw(lrs), draw(lrs)])
    known = [Observation(draw(lrs), draw(st.floats(0, 2))), *seen]
    return Question(tuple(known), WAY, tuple(sorted(families, key=lambda f: f.key)), FAMILIES, low, high)


@given(questions())
@PROPERTY
def test_what_is_chosen_is_new_below_what_diverged_and_within_the_range(asked: Question) -> None:
    place = choose(asked)
    if place is not None:
        assert asked.low <= place.lr <= asked.high
        assert place.family in asked.families
        assert is_new(place, asked.seen)


@given(questions())
@PROPERTY
def test_nothing_is_chosen_only_where_nothing_new_is_left(asked: Question) -> None:
    losses = [(o.objective or 0.0, o.lr) for o in asked.seen if not o.diverged]
    near = [min(losses)[1] * 2 ** (k / 2) for k in range(-6, 9)]
    left = [
        Place(lr, family)
        for family in asked.families
        for lr in near
        if asked.low <= lr <= asked.high and is_new(Place(lr, family), asked.seen)
    ]
    assert (choose(asked) is None) == (left == [])


def test_no_training_of_another_place_is_worth_more() -> None:
    asked = question([*trained([BEST / 8, BEST, BEST * 4]), *trained([BEST], LINEAR)], CONSTANT, LINEAR)
    place = choose(asked)
    assert place is not None
    near = [Place(BEST * 2 ** (k / 2), f) for f in asked.families for k in range(-6, 9)]
    others = [other for other in near if is_new(other, asked.seen)]
    worth = Surface(asked.seen, WAY).knowledge_gradient([place, *others], near)
    assert worth[0] == pytest.approx(worth.max())


def test_where_all_lrs_near_the_best_were_tried_there_is_none() -> None:
    everywhere = trained([BEST * 2 ** (k / 2) for k in range(-6, 9)])
    assert choose(question(everywhere)) is None
    assert choose(question(everywhere, CONSTANT, LINEAR)) is not None


def test_where_all_lrs_of_the_range_were_tried_there_is_none() -> None:
    assert choose(question(trained([BEST]), low=0.9 * BEST, high=1.1 * BEST)) is None
    assert choose(question(trained([BEST]), low=100.0, high=1000.0)) is None


def test_a_divergence_bounds_its_own_family_alone() -> None:
    """A decay goes on to lrs at which the constant one diverged."""
    seen = [*trained([BEST / 4, BEST]), Observation(1.4 * BEST, None, diverged=True)]
    seen += trained([BEST / 4, BEST, 4 * BEST], LINEAR, best=4 * BEST)
    constant, linear = choose(question(seen)), choose(question(seen, LINEAR))
    assert constant is not None
    assert constant.lr < 1.4 * BEST
    assert linear is not None
    assert linear.lr > 1.4 * BEST


def test_a_training_whose_best_seed_diverged_on_another_is_no_end() -> None:
    seen = [*trained([BEST / 4, BEST]), Observation(BEST, None, 1, diverged=True)]
    place = choose(question(seen))
    assert place is not None
    assert place.lr < BEST


def test_a_training_without_a_loss_is_not_taken_for_the_best() -> None:
    seen = [*trained([BEST / 4, BEST, BEST * 4]), Observation(1e-7, None)]
    place = choose(question(seen))
    assert place is not None
    assert BEST / 8 <= place.lr <= BEST * 16


def test_one_after_the_other_the_choices_find_the_optimum_of_two_families() -> None:
    rng = np.random.default_rng(0)
    best = {CONSTANT: BEST, LINEAR: 3 * BEST}

    def train(place: Place) -> Observation:
        (found,) = trained([place.lr], place.family, best[place.family])
        gain = 0.02 * (place.family == LINEAR)
        return replace(found, objective=(found.objective or 0) - gain + 0.005 * rng.standard_normal())

    seen = [train(Place(lr)) for lr in (BEST / 16, BEST / 4, BEST)]
    for _ in range(8):
        place = choose(question(seen, CONSTANT, LINEAR))
        assert place is not None
        seen.append(train(place))
    surface, lrs = Surface(seen, WAY), [BEST * 2 ** (k / 8) for k in range(-16, 33)]
    expected = {
        p: loss
        for f in best
        for p, loss in zip(
            [Place(lr, f) for lr in lrs], surface.losses([Place(lr, f) for lr in lrs]), strict=True
        )
    }
    found = min(expected, key=lambda p: expected[p])
    assert found.family == LINEAR
    assert abs(math.log2(found.lr / best[LINEAR])) < 0.5


def test_the_same_question_has_the_same_answer() -> None:
    asked = question([*trained([BEST / 4, BEST]), *trained([BEST], LINEAR)], CONSTANT, LINEAR, WSD)
    assert choose(asked) == choose(replace(asked))
