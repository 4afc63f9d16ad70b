"""What a study was begun with: a resume goes on only where plan, task and data are still the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.comparison import leaves
from lrsearch.core.conclude import Evidence, conclude
from lrsearch.core.confirm import Confirmed
from lrsearch.core.findings import Bracket
from lrsearch.core.stages import Base
from lrsearch.core.study_plan import SWEEP_STEPS, StudyPlan
from lrsearch.core.sweep_plan import SweepPlan, TrainingSettings, validated
from lrsearch.core.update_code import update_code
from lrsearch.errors import InputError, RecordError
from lrsearch.files import write_json
from lrsearch.schedules import schedule_from_dict
from lrsearch.tracking.folder import FORMAT, StudyFolder, check_format


@dataclass(frozen=True)
class StudyConfig:
    """The plan, the task's name, kwargs and model_info (model, optimizer …), its data, and the full length.

    `source` and `settings` name the task on the command line; without them it cannot be made from its name.
    `accepted` are the changes that were accepted when the study was resumed: by their paths, then and now.
    """

    plan: StudyPlan
    task: str
    model_info: Mapping[str, Any]
    task_kwargs: Mapping[str, Any]
    data: Mapping[str, Any]
    total_steps: int
    steps_per_epoch: int | None
    source: str | None = None
    settings: tuple[str, ...] = ()
    accepted: Mapping[str, Any] = field(default_factory=dict)

    @property
    def training(self) -> TrainingSettings:
        """What the task says of its training beside its parts."""
        names = TrainingSettings.model_fields.keys() & self.model_info.keys()
        return TrainingSettings(**{name: self.model_info[name] for name in names})

    @property
    def sweep(self) -> SweepPlan:
        """The range test's part of the plan; fewer sweeps rather than too short ones."""
        stage = self.plan.range_test
        affordable = stage.repeats * stage.share * self.total_steps
        repeats = min(stage.repeats, max(1, int(affordable // SWEEP_STEPS)))
        usual = SweepPlan().steps_for(self.steps_per_epoch)
        return SweepPlan(
            min_lr=stage.min_lr,
            max_lr=stage.max_lr,
            steps=max(min(usual, int(affordable / repeats)), SWEEP_STEPS),
            repeats=repeats,
            seed=self.plan.seed,
            divergence=self.plan.divergence,
            **self.training.said(),
        )

    def save(self, folder: StudyFolder) -> None:
        """Write `plan.json`."""
        write_json(folder.plan, {"format": FORMAT, **self._plain(), "plan_hash": self.plan.hash})

    def conclude(
        self, stages: Sequence[StageResult], bracket: Bracket | None, base: Base, confirmed: Confirmed
    ) -> Answer:
        """Return the answer of this study, whose stages are all done."""
        return conclude(
            Evidence(
                plan=self.plan,
                stages=stages,
                bracketed=bracket is not None,
                base=base,
                confirmed=confirmed,
                model_info=self.model_info,
                total_steps=self.total_steps,
                accepted=tuple(self.accepted),
            )
        )

    def code(self, answer: Answer) -> str:
        """Return the lines to paste: the scheduler, and an update where the task says how it is made."""
        schedule, settings = schedule_from_dict(answer.schedule), self.training
        epoch = self.steps_per_epoch
        if "plateau" in (data.get("name") for data in (answer.schedule, answer.schedule.get("inner", {}))):
            epoch = settings.val_every or epoch  # a plateau counts validations
        update = update_code(settings, str(self.model_info.get("device", "")).partition(":")[0])
        return "\n".join([schedule.code(answer.lr, self.total_steps, epoch), *update])

    def check(self, before: StudyConfig) -> None:
        """Raise InputError that names what has changed since the study was begun, the first with values."""
        differences = self.differences(before)
        if not differences:
            return
        name, (then, now) = next(iter(differences.items()))
        others = f", and {', '.join(list(differences)[1:])} changed too" if len(differences) > 1 else ""
        raise InputError(
            name,
            now,
            f"the study was begun with {then!r}{others}",
            "take another name, or go on all the same: accept_changes=True, --accept-changes",
        )

    def differences(self, before: StudyConfig) -> dict[str, tuple[Any, Any]]:
        """What has changed, by its path: then and now."""
        then, now = (dict(leaves(config._comparable())) for config in (before, self))
        return {
            name: (then.get(name), now.get(name))
            for name in {**then, **now}
            if then.get(name) != now.get(name)
        }

    def _plain(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.loads(json.dumps({**values, "plan": self.plan.to_dict()}, default=str))  # type: ignore[no-any-return]

    def _comparable(self) -> dict[str, Any]:
        plain = self._plain()
        data = {context: dict(facts) for context, facts in plain["data"].items()}
        for facts in data.values():
            facts.pop("fingerprint_reason", None)  # unknown is unknown, for whatever reason
        names = ("plan", "task", "model_info", "total_steps")
        own = {"arguments": plain["task_kwargs"], "data": data}  # by the names that a person knows
        return {name: plain[name] for name in names} | own


def load_config(folder: StudyFolder) -> StudyConfig:
    """What a study was begun with; RecordError where `plan.json` is missing or damaged."""
    try:
        values = json.loads(folder.plan.read_text(encoding="utf-8"))
        check_format(folder.plan, values.pop("format", None))
        values.pop("plan_hash")
        plan = validated(StudyPlan, **values.pop("plan"))
        return StudyConfig(plan=plan, settings=tuple(values.pop("settings")), **values)
    except FileNotFoundError:
        curve = folder.path / "curve.png"
        if curve.is_file() and not folder.optuna_db.is_file():
            raise RecordError(f"{folder.name} is a range test, no study; its curve: {curve}") from None
        begun = "" if folder.journals() else f"; it never began, and lrsearch rm {folder.name} makes room"
        raise RecordError(f"{folder.name}: no study there ({folder.plan} is missing){begun}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{folder.plan} is damaged: {error!r}") from error
