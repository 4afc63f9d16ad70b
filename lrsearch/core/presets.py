"""Plans by the name of a preset, from a file, from a table."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrsearch.core.study_plan import StudyPlan, merge
from lrsearch.core.sweep_plan import validated
from lrsearch.errors import InputError
from lrsearch.schedules import Sweep, decay_names, schedule_from_dict

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "budget": 10.0,
        "baseline": False,
        "range_test": {"repeats": 2, "share": 0.25},
        "decay": {"families": ["constant", "linear", "one_cycle"]},
        "confirm": {"seeds": 1, "max_seeds": 3},
    },
    "default": {},
    "thorough": {
        "budget": 60.0,
        "coarse": {"points": 5, "factor": 4.0, "replicates": 4, "extensions": 4},
        "fine": {"trials": 6},
        "decay": {
            "families": [
                *("constant", "linear", "cosine", "wsd", "step", "one_cycle"),
                *("exponential", "polynomial"),
            ],
            "extended": 3,
            "trials": 24,
        },
        "confirm": {"candidates": 3, "seeds": 3, "max_seeds": 6},
    },
}
"""Why they are as they are, in figures: the README's section on the benchmark."""


def load_plan(source: str | os.PathLike[str] | Mapping[str, Any] | StudyPlan = "default") -> StudyPlan:
    """A plan from a preset's name, a TOML file, or a mapping; both may name the `preset` they start from.

    Raises InputError that names the field, its value and the mend, also for a schedule.
    """
    if isinstance(source, StudyPlan):
        return _checked(source)
    if isinstance(source, Mapping):
        return _checked(_from_table(source))
    if isinstance(source, str) and not source.endswith(".toml"):
        return _checked(_from_table({"preset": source}))
    try:
        return _checked(_from_table(tomllib.loads(Path(source).read_text(encoding="utf-8"))))
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise InputError("plan", str(source), problem, "check the path") from error
    except InputError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError("plan", str(source), f"is no TOML ({error})", "mend the file") from error


def _checked(plan: StudyPlan) -> StudyPlan:
    """The plan, once every schedule in it is a decay that is known, with parameters that it takes.

    This is asked of a plan that is to be carried out: a record may be read where a family is not known.
    """
    families = {f"decay.families[{k}]": family for k, family in enumerate(plan.decay.families)}
    for argument, data in {"base_schedule": plan.base_schedule, **families}.items():
        if isinstance(schedule_from_dict(data, argument), Sweep):
            mend = f"choose from {', '.join(decay_names())}"
            raise InputError(f"{argument}.name", data["name"], "is no decay", mend)
    return plan


def _from_table(table: Mapping[str, Any]) -> StudyPlan:
    preset = table.get("preset", "default")
    if not isinstance(preset, str) or preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise InputError("plan", preset, "is no preset", f"choose from {known}, or give a .toml file")
    for name in table:
        if not isinstance(name, str):
            raise InputError("plan", name, "is no name of a setting", "give names as text")
    return validated(StudyPlan, **merge(PRESETS[preset], table))
