"""The response surface as an Optuna sampler."""

from __future__ import annotations

from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lrsearch.core.family import CONSTANT, Family, family_of
from lrsearch.core.proposal import Question, choose
from lrsearch.core.surface import Observation
from lrsearch.errors import InputError
from lrsearch.schedules import schedule_from_dict

_LR, _SCHEDULE = "lr", "schedule"


class SurfaceSampler(BaseSampler):
    """Suggest the learning rate and the schedule whose training is worth most to know.

    It looks at two parameters: ``lr``, a float on a log scale, and ``schedule``, which may be missing; its
    choices are names such as ``"constant"`` and ``"linear"``. All other parameters, and the first lr,
    are drawn at random. A trial whose constraint ``diverged`` is above 0 bounds the lr.

    Parameters
    ----------
    way : float, optional
        How far the objective of an untrained model is from the best one. By default the distance from the
        worst to the best trial.
    before : Question, optional
        What was known before the study, and what it may ask for. By default nothing is, and it may ask for
        what the trials' distributions allow.
    seed : int
        The seed of what is drawn at random.

    Notes
    -----
    The knowledge gradient of a Gaussian process over log lr and schedule, see `lrsearch.core.surface`. The
    same trials give the same suggestion.

    Examples
    --------
    >>> import math, optuna, lrsearch
    >>> optuna.logging.set_verbosity(optuna.logging.ERROR)
    >>> study = optuna.create_study(sampler=lrsearch.SurfaceSampler(way=2.0))
    >>> def objective(trial):
    ...     lr = trial.suggest_float("lr", 1e-5, 1.0, log=True)
    ...     return 0.4 + 0.02 * math.log2(lr / 0.01) ** 2
    >>> study.optimize(objective, n_trials=8)
    >>> 0.007 < study.best_params["lr"] < 0.014
    True
    """

    def __init__(self, way: float | None = None, *, before: Question | None = None, seed: int = 0) -> None:
        self._way = way if before is None else before.way
        self._before = before
        self._others = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """Find the two parameters that are suggested together.

        Parameters
        ----------
        study : optuna.Study
            The study.
        trial : optuna.trial.FrozenTrial
            The trial under way.

        Returns
        -------
        dict of str to BaseDistribution
            ``lr``, and ``schedule`` where there is one; empty before a trial has had them, unless something
            is known before.
        """
        if self._before is not None:
            return axes_of(self._before)
        known = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        axes = known[-1].distributions if known else {}
        return {name: axis for name, axis in axes.items() if name in (_LR, _SCHEDULE)}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Suggest the lr and the schedule whose training is worth most.

        Parameters
        ----------
        study : optuna.Study
            The study; its complete trials are read.
        trial : optuna.trial.FrozenTrial
            The trial under way.
        search_space : dict of str to BaseDistribution
            What `infer_relative_search_space` found.

        Returns
        -------
        dict of str to float or str
            The two values; empty where no trial tells them, or nothing new is left.

        Raises
        ------
        InputError
            If ``lr`` is no float on a log scale, or a schedule is not known.
        """
        lr, schedules = search_space.get(_LR), search_space.get(_SCHEDULE)
        if lr is None:
            return {}
        if not isinstance(lr, FloatDistribution) or not lr.log:
            mend = "use suggest_float('lr', low, high, log=True)"
            raise InputError("lr", lr, "is no float on a log scale", mend)
        choices = schedules.choices if isinstance(schedules, CategoricalDistribution) else ("constant",)
        families = {self._family(choice): choice for choice in choices}
        seen = self._observed(study)
        losses = [o.objective for o in seen if o.objective is not None]
        if not losses:
            return {}
        way = self._way or max(max(losses) - min(losses), 1e-3 * max(abs(min(losses)), 1e-12))
        answers = tuple(families) if self._before is None else self._before.answers
        place = choose(Question(seen, way, tuple(families), answers, lr.low, lr.high))
        if place is None:
            return {}
        found: dict[str, Any] = {_LR: place.lr}
        return found if schedules is None else {**found, _SCHEDULE: families[place.family]}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw another parameter at random.

        Parameters
        ----------
        study : optuna.Study
            The study.
        trial : optuna.trial.FrozenTrial
            The trial under way.
        param_name : str
            The parameter's name.
        param_distribution : BaseDistribution
            What it is drawn from.

        Returns
        -------
        object
            Its value.
        """
        return self._others.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw other numbers, as Optuna asks for in a new process."""
        self._others.reseed_rng()

    def _family(self, choice: object) -> Family:
        """What a choice stands for: a family known before, by its key, or a schedule, by its name."""
        known = {} if self._before is None else {family.key: family for family in self._before.families}
        return known.get(str(choice)) or family_of(schedule_from_dict({"name": str(choice)}).to_dict())

    def _observed(self, study: Study) -> tuple[Observation, ...]:
        """What was known before, and the study's trials as losses, each a seed of its own."""
        sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
        seen = [] if self._before is None else [*self._before.seen]
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if _LR in trial.params and trial.value is not None:
                schedule = trial.params.get(_SCHEDULE)
                family = CONSTANT if schedule is None else self._family(schedule)
                diverged = any(value > 0 for value in trial.constraints.values())
                loss = None if diverged else sign * trial.value
                seen.append(Observation(trial.params[_LR], loss, trial.number, diverged, family))
        return tuple(seen)


def axes_of(question: Question) -> dict[str, BaseDistribution]:
    """Return the two parameters of what a question may ask for; a schedule is chosen by its family's key."""
    return {
        _LR: FloatDistribution(question.low, question.high, log=True),
        _SCHEDULE: CategoricalDistribution([family.key for family in question.families]),
    }
