"""What a study is to do: its stages, budgets and schedules, validated, priced and hashed before it starts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from lrsearch.core.divergence import Divergence
from lrsearch.core.objective import Objective
from lrsearch.core.sweep_plan import PlanPart, validated
from lrsearch.errors import InputError

StageName = Literal["range-test", "coarse", "fine", "decay", "confirm"]
STAGES: tuple[StageName, ...] = ("range-test", "coarse", "fine", "decay", "confirm")

SWEEP_STEPS = 100
"""Updates that a study's sweep has at least: enough to tell the edge within a factor 3."""
_RECORDED_STEPS = 1000  # training losses that a trial records at most; more are thinned evenly


class RangeTestStage(PlanPart):
    """The sweeps that bracket the lr; one costs at most `share` of a full training."""

    repeats: int = Field(3, ge=1, description="give the number of seeds, at least 1")
    share: float = Field(1 / 3, gt=0, description="give a share of a training, above 0")
    min_lr: float = Field(1e-7, gt=0, description="give a finite lr above 0, e.g. 1e-7")
    max_lr: float = Field(10.0, gt=0, description="give a finite lr above min_lr, e.g. 10")


class CoarseStage(PlanPart):
    """A log grid of the base lr below the edge, extended where the best is at an end; then further seeds."""

    points: int = Field(3, ge=3, description="give the number of lrs, at least 3")
    factor: float = Field(8.0, gt=1, le=100, description="give the ratio of neighbouring lrs, e.g. 4")
    extensions: int = Field(3, ge=0, description="give the most lrs to add at the ends")
    replicates: int = Field(1, ge=1, description="give the number of further seeds, at least 1")


class FineStage(PlanPart):
    """The vertex of the response, then a sampler, until nothing more is to be gained."""

    trials: int = Field(0, ge=0, description="give the most trials, at least 0")


class DecayStage(PlanPart):
    """The schedule families at an lr above the base lr; the best are followed octave by octave."""

    families: tuple[dict[str, Any], ...] = Field(
        tuple({"name": name} for name in ("constant", "linear", "wsd", "one_cycle")),
        min_length=1,
        description="name at least one schedule, e.g. ['constant', 'linear']",
    )
    peak_factor: float = Field(2.0, ge=0.25, le=16, description="give a ratio to the base lr, e.g. 2")
    extended: int = Field(1, ge=1, description="give how many families are followed, at least 1")
    trials: int = Field(16, ge=1, description="give the most trials, at least 1")

    @field_validator("families", mode="before")
    @classmethod
    def _names_are_schedules(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple({"name": item} if isinstance(item, str) else item for item in value)
        return value


class ConfirmStage(PlanPart):
    """Fresh seeds for the finalists, the same for each, more while it is undecided; the baseline has one."""

    candidates: int = Field(2, ge=2, le=6, description="give the number of finalists, 2 to 6")
    seeds: int = Field(2, ge=1, description="give the number of seeds, at least 1")
    max_seeds: int = Field(4, ge=1, description="give the most seeds, at least as many as seeds")
    paired: bool = Field(True, description="true compares equal seeds, false takes them as independent")

    @model_validator(mode="after")
    def _more_seeds_not_fewer(self) -> Self:
        if self.max_seeds < self.seeds:
            raise InputError(
                "confirm.max_seeds", self.max_seeds, f"is below seeds={self.seeds}", "give at least as many"
            )
        return self


@dataclass(frozen=True)
class StageCost:
    """What a stage costs, in run-equivalents: what is kept for it, and the most it may take."""

    stage: StageName
    least: float
    most: float


class StudyPlan(PlanPart):
    """Everything that decides how a study goes, apart from its task.

    Each stage may spend what the later ones do not need; together they cost at most `budget` run-equivalents
    (one run-equivalent is one full training).

    Parameters
    ----------
    preset : {"default", "quick", "thorough"}
        The name of the preset that the plan starts from; `lrsearch.search` fills in its values.
    objective : Objective
        What is optimised: ``metric``, ``direction`` and ``use`` (``"final"`` or ``"best"``); by default the
        final ``val/loss``.
    epochs, steps : int, optional
        The length of a full training, in epochs or in updates; at most one of them is given. By default 5
        epochs.
    seed : int
        The seed of the whole study, from 0 to 2**31 - 1.
    budget : float
        The most that the study may cost, in run-equivalents.
    base_schedule : dict or str
        The schedule of the coarse and the fine stage, such as ``{"name": "constant"}``.
    proxy : float
        The length of the coarse and fine trials as a share of the full training, above 0 and at most 1; each
        has a complete schedule.
    delta : float
        The margin within which a simpler schedule is kept, as a share of the initial minus the best loss.
    level : float
        The confidence of intervals and bounds, from 0.5 to 0.99.
    baseline : bool
        Whether to train once with Adam at lr 1e-3 too, for comparison.
    divergence : {"auto", "not_finite", "loss_rose"}
        What makes a training diverged, besides losses or weights that are not finite. ``loss_rose``: a
        training loss that rose for good, which ends it at once. ``auto``: that, but only where the objective
        is no better than the untrained model's, from half of the training on. ``not_finite``: nothing else.
    log_every : int, optional
        The number of steps between recorded training losses; by default a trial records at most 1,000.
    range_test : RangeTestStage
        The sweeps: ``repeats``, ``share`` (the most that one costs), ``min_lr`` and ``max_lr``.
    coarse : CoarseStage
        The log grid: ``points``, ``factor``, ``extensions`` and ``replicates``.
    fine : FineStage
        The search around its best: ``trials``.
    decay : DecayStage
        The schedules: ``families``, ``peak_factor``, ``extended`` and ``trials``.
    confirm : ConfirmStage
        The finalists on fresh seeds: ``candidates``, ``seeds``, ``max_seeds`` and ``paired``.

    Raises
    ------
    pydantic.ValidationError
        For a wrong value. It is a ValueError; `lrsearch.search`, given the settings as a mapping, and
        `with_changes` raise an InputError instead.

    Examples
    --------
    >>> import lrsearch
    >>> plan = lrsearch.StudyPlan(epochs=3)
    >>> plan.budget, plan.total_steps(steps_per_epoch=100)
    (16.0, 300)
    >>> [cost.stage for cost in plan.costs()]
    ['range-test', 'coarse', 'fine', 'decay', 'confirm']
    >>> plan.with_changes(budget=30, confirm={"seeds": 4, "max_seeds": 6}).confirm.seeds
    4
    >>> plan.with_changes(budget=3)
    Traceback (most recent call last):
    lrsearch.errors.InputError: budget=3.0: is below the 14.0 run-equivalents that the stages need; ...
    """

    preset: str = "default"
    objective: Objective = Objective()
    epochs: Annotated[int, Field(ge=1, description="give a whole number, at least 1")] | None = None
    steps: Annotated[int, Field(ge=20, description="give a whole number, at least 20")] | None = None
    seed: int = Field(0, ge=0, lt=2**31, description="give a whole number from 0 to 2**31 - 1")
    budget: float = Field(16.0, gt=0, description="give run-equivalents, above 0")
    base_schedule: dict[str, Any] = Field({"name": "constant"}, description="name a schedule")
    proxy: float = Field(1.0, gt=0, le=1, description="give a share of the full training above 0, at most 1")
    delta: float = Field(0.002, gt=0, lt=1, description="give a share of the improvement, e.g. 0.002")
    level: float = Field(0.9, ge=0.5, le=0.99, description="give a confidence from 0.5 to 0.99")
    baseline: bool = Field(True, description="true also trains once with Adam at lr 1e-3")
    divergence: Divergence = Field("auto", description="choose 'auto', 'not_finite' or 'loss_rose'")
    log_every: Annotated[int, Field(ge=1, description="give a number of steps, at least 1")] | None = None
    range_test: RangeTestStage = RangeTestStage()
    coarse: CoarseStage = CoarseStage()
    fine: FineStage = FineStage()
    decay: DecayStage = DecayStage()
    confirm: ConfirmStage = ConfirmStage()

    @field_validator("base_schedule", mode="before")
    @classmethod
    def _name_is_schedule(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_its_budget(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise InputError("steps", self.steps, f"is given beside epochs={self.epochs}", "give one of them")
        if self.range_test.min_lr >= self.range_test.max_lr:
            low, high = self.range_test.min_lr, self.range_test.max_lr
            raise InputError("range_test.min_lr", low, f"is not below max_lr={high}", "widen the range")
        least = sum(cost.least for cost in self.costs())
        if least > self.budget:
            raise InputError(
                "budget",
                self.budget,
                f"is below the {least:.1f} run-equivalents that the stages need",
                "raise it, or ask less of a stage",
            )
        return self

    def costs(self) -> list[StageCost]:
        """Return what each stage costs, in run-equivalents; together they never exceed `budget`.

        Returns
        -------
        list of StageCost
            In the order of the stages: what is kept for a stage, and the most it may take.
        """
        coarse, confirm = self.coarse, self.confirm
        baseline = float(self.baseline)
        sweeps = self.range_test.repeats * self.range_test.share
        grid = coarse.points + coarse.replicates
        families = float(len(self.decayed) + self.decay.extended if self.decayed else 0)
        neighbours = 3.0 if self.proxy < 1 else 0.0
        least = {
            "range-test": (sweeps, sweeps),
            "coarse": (self.proxy * grid, self.proxy * (grid + coarse.extensions)),
            "fine": (
                self.proxy * min(self.fine.trials, 1) + neighbours,
                self.proxy * self.fine.trials + neighbours,
            ),
            "decay": (families, max(self.decay.trials, families)),
            "confirm": (2.0 * confirm.seeds + baseline, confirm.candidates * confirm.max_seeds + baseline),
        }
        return [StageCost(stage, *least[stage]) for stage in STAGES]

    def kept_for_later(self, stage: StageName) -> float:
        """Return the run-equivalents that the stages after a given one need.

        Parameters
        ----------
        stage : {"range-test", "coarse", "fine", "decay", "confirm"}
            The stage.

        Returns
        -------
        float
            The sum of what the later stages need at least.
        """
        return sum(cost.least for cost in self.costs()[STAGES.index(stage) + 1 :])

    @property
    def decayed(self) -> tuple[dict[str, Any], ...]:
        """The families of the decay stage, without the base schedule."""
        return tuple(family for family in self.decay.families if family != self.base_schedule)

    def expected_lr(self, schedule: Mapping[str, Any], base_lr: float) -> float:
        """Return where the best lr under a schedule is expected, given the best one under the base schedule.

        Decay, like a warmup, raises it by ``decay.peak_factor`` against a constant lr.

        Parameters
        ----------
        schedule : mapping
            The schedule as its ``to_dict``.
        base_lr : float
            The best lr under the base schedule.

        Returns
        -------
        float
            The expected lr: ``base_lr`` times, divided by, or without the ``decay.peak_factor``.

        Examples
        --------
        >>> import lrsearch
        >>> lrsearch.StudyPlan().expected_lr({"name": "linear"}, 0.1)
        0.2
        """
        if schedule == self.base_schedule:
            return base_lr
        if self.base_schedule["name"] == "constant":
            return base_lr * self.decay.peak_factor
        return base_lr / self.decay.peak_factor if schedule["name"] == "constant" else base_lr

    def total_steps(self, steps_per_epoch: int | None) -> int:
        """Return the number of updates of a full training.

        Parameters
        ----------
        steps_per_epoch : int or None
            The number of updates of an epoch; None where it is not known.

        Returns
        -------
        int
            `steps`, or `epochs` (5 where neither is given) times `steps_per_epoch`.

        Raises
        ------
        InputError
            If the length of an epoch is needed and not known.
        """
        if self.steps is not None:
            return self.steps
        epochs = self.epochs or DEFAULT_EPOCHS
        if steps_per_epoch is None:
            raise InputError("epochs", epochs, "the length of an epoch is not known", "give steps instead")
        return epochs * steps_per_epoch

    def with_whole_sweeps(self, total_steps: int) -> StudyPlan:
        """Return the plan with sweeps of at least 100 updates: fewer sweeps rather than too short ones.

        If a training is so short that a single sweep costs more than the plan has for it, the budget grows as
        far as the other stages need.

        Parameters
        ----------
        total_steps : int
            The number of updates of a full training.

        Returns
        -------
        StudyPlan
            The plan; this one if its sweeps are long enough.
        """
        stage, needed = self.range_test, SWEEP_STEPS / total_steps
        if stage.repeats * stage.share >= needed:
            return self
        all_least = math.ceil(10 * (needed + self.kept_for_later("range-test"))) / 10
        return self.with_changes(
            budget=max(self.budget, all_least), range_test={"repeats": 1, "share": needed}
        )

    def recorded_every(self, total_steps: int) -> int:
        """Return how many steps lie between recorded training losses.

        Parameters
        ----------
        total_steps : int
            The number of updates of the training.

        Returns
        -------
        int
            `log_every`, or as many as let a trial record at most 1,000 losses.
        """
        return self.log_every or -(-total_steps // _RECORDED_STEPS)

    def with_changes(self, **changes: Any) -> StudyPlan:
        """Return the plan with some fields changed, validated again.

        Nested fields are merged. Another metric of the objective does not inherit the direction of the one
        before.

        Parameters
        ----------
        **changes : object
            The new values, by the names of the fields.

        Returns
        -------
        StudyPlan
            The changed plan.

        Raises
        ------
        InputError
            For a wrong value; the message names the field, its value and the mend.
        """
        objective = changes.get("objective")
        metric = self.objective.metric
        if isinstance(objective, Mapping) and objective.get("metric", metric) != metric:
            changes["objective"] = {"direction": None, **objective}
        return validated(StudyPlan, **merge(self.to_dict(), changes))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON.

        Returns
        -------
        dict
            All fields; ``StudyPlan(**values)`` makes an equal plan of it.
        """
        return self.model_dump(mode="json")

    @property
    def hash(self) -> str:
        """The same for equal plans: 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


DEFAULT_EPOCHS = 5


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return one table with the values of another put in, tables within tables likewise."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and key != "base_schedule":
            value = merge(below, value)  # noqa: PLW2901 (another family has other parameters, so not merged)
        merged[key] = value
    return merged
