"""Numbers, ranges, gains, plans and findings in words: each is put into words here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lrsearch.core.findings import (
    CoarseFindings,
    ConfirmFindings,
    DecayFindings,
    Findings,
    FineFindings,
    SweepFindings,
)
from lrsearch.schedules import schedule_name

if TYPE_CHECKING:
    from lrsearch.core.response import Interval, Tolerance
    from lrsearch.core.stats import Gain, GainVerdict
    from lrsearch.core.study_plan import StageName, StudyPlan

NONE = "–"
BASELINE = "Adam at lr 0.001"

VERDICTS: dict[GainVerdict, str] = {
    "worse": "worse",
    "not_worse": "not worse by more than the margin",
    "better": "better on the seeds of both",
    "not_better": "not better by more than the margin, and the winner is simpler",
    "undecided": "undecided",
    "one_seed": "undecided: a single seed",
}
"""How a finalist compares with the winner."""

_SHOWN_GROUPS = 4
_SHOWN_SCHEDULES = 3
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


# --- numbers ----------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Three significant digits, as an lr or a cost is read; a dash for None."""
    return NONE if value is None else f"{value:.3g}"


def amount(value: float | None) -> str:
    """Four significant digits, all of them shown, as an objective is read; a dash for None."""
    return NONE if value is None else f"{value:#.4g}".rstrip(".")


def noise(value: float | None) -> str:
    """How far seeds differ."""
    if value is None:
        return "not measured: no configuration was trained with two seeds"
    return f"the standard deviation between seeds is {number(value)}"


def signed(value: float) -> str:
    """A difference: three significant digits, all of them shown, and its sign."""
    return f"{value:+#.3g}"


def bounds(low: float | None, high: float | None) -> str:
    """The bounds of a difference; ``none`` where a single seed gives none."""
    return "none" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def count(number: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def at_least_at_most(least: float, most: float) -> str:
    """``2 to 4``, or ``2`` where both are the same."""
    return number(least) if least == most else f"{number(least)} to {number(most)}"


def duration(seconds: float, *, roughly: bool = False) -> str:
    """``3.2 s``, ``4 min 50 s``, ``2 h 5 min``; `roughly`, the largest unit alone."""
    if seconds < 10:
        return f"{seconds:.0f} s" if roughly else f"{seconds:.1f} s"
    rest = round(seconds)
    k = next(k for k, (size, _) in enumerate(_UNITS) if rest >= size)
    size, unit = _UNITS[k]
    if roughly or size == 1:
        return f"{rest / size:.0f} {unit}"
    small, small_unit = _UNITS[k + 1]
    whole, part = divmod(round(rest / small), size // small)
    return f"{whole} {unit} {part} {small_unit}" if part else f"{whole} {unit}"


# --- sentences --------------------------------------------------------------------------------------------


def sentence(words: str) -> str:
    """The words with a capital at their beginning."""
    return words[:1].upper() + words[1:]


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def spaced(name: str) -> str:
    """``batch size`` for ``batch_size``."""
    return name.replace("_", " ")


def setting(value: Any) -> str:
    """A setting as people read it; schedules by their names."""
    match value:
        case None:
            return NONE
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:g}"
        case Mapping() if "name" in value:
            return schedule_name(value)
        case list() | tuple():
            return ", ".join(map(setting, value))
        case _:
            return str(value)


# --- lrs --------------------------------------------------------------------------------------------------


def span(found: Interval | Tolerance) -> str:
    """From the lowest lr to the highest, and which of them is open: ``0.05 or lower to 0.2``."""
    low = f"{number(found.low)}{' or lower' if found.low_open else ''}"
    return f"{low} to {number(found.high)}{' or higher' if found.high_open else ''}"


def interval(found: Interval) -> str:
    """``90% interval 0.05 to 0.2``."""
    return f"{found.level:.0%} interval {span(found)}"


def tolerance(found: Tolerance, margin: float, metric: str) -> str:
    """How far the lr may move before the metric is worse by more than the margin."""
    return f"any lr from {span(found)} is expected to come within {number(margin)} of the best {metric}"


def bracket(low: float, high: float | None) -> str:
    """``0.001 to 0.5``, or ``0.001 upwards`` where no upper end was found."""
    return f"{number(low)} upwards" if high is None else f"{number(low)} to {number(high)}"


def groups(lrs: Sequence[float]) -> str:
    """The lrs of the param groups, in their order; of many the first ones."""
    shown = ", ".join(map(number, lrs[:_SHOWN_GROUPS]))
    return shown if len(lrs) <= _SHOWN_GROUPS else f"{shown} … ({len(lrs)} groups)"


def schedule(found: Mapping[str, Any]) -> str:
    """A schedule with its settings: ``wsd (decay 0.2)``."""
    inner = found.get("inner", {})
    settings = {name: value for name, value in {**inner, **found}.items() if name not in ("name", "inner")}
    said = ", ".join(f"{spaced(name)} {value}" for name, value in settings.items())
    return f"{schedule_name(found)} ({said})" if said else schedule_name(found)


def schedule_at(name: str, lr: float) -> str:
    """``linear at 0.1``."""
    return f"{name} at {number(lr)}"


# --- gains ------------------------------------------------------------------------------------------------


def better(gain: float) -> str:
    """``0.03 better``, or worse where it is negative."""
    return f"{number(abs(gain))} {'better' if gain >= 0 else 'worse'}"


def gain(found: Gain, than: str) -> str:
    """``0.03 better than …``, with the bounds that decide, and what they leave open."""
    said = f"{better(found.mean)} than {than}"
    if found.low is None:
        return f"{said} ({VERDICTS[found.verdict]})"
    beside = {"worse": "", "not_worse": ": less than the margin"}.get(found.verdict, f": {found.verdict}")
    return f"{said} ({found.level:.0%} bounds {bounds(found.low, found.high)}{beside})"


# --- plans and stages -------------------------------------------------------------------------------------


def plan_cost(plan: StudyPlan, total_steps: int, steps_per_epoch: int | None) -> str:
    """The most that a plan costs, in run-equivalents and in updates."""
    updates = f"{round(plan.budget * total_steps):,} updates"
    length = training_length(total_steps, steps_per_epoch)
    return f"at most {number(plan.budget)} run-equivalents, that is {updates} (a full training: {length})"


def training_length(total_steps: int, steps_per_epoch: int | None) -> str:
    """``200 updates, 5 epochs of 40``."""
    epochs = (
        f", {number(total_steps / steps_per_epoch)} epochs of {steps_per_epoch:,}" if steps_per_epoch else ""
    )
    return f"{total_steps:,} updates{epochs}"


def plan_stages(plan: StudyPlan) -> dict[StageName, str]:
    """What each stage of a plan does."""
    return {
        "range-test": _range_test(plan),
        "coarse": _coarse(plan),
        "fine": _fine(plan),
        "decay": _decay(plan),
        "confirm": _confirm(plan),
    }


def _range_test(plan: StudyPlan) -> str:
    stage = plan.range_test
    lrs = f"{number(stage.min_lr)} to {number(stage.max_lr)}"
    return f"{count(stage.repeats, 'sweep')} from lr {lrs}, each up to {stage.share:.0%} of a training"


def _coarse(plan: StudyPlan) -> str:
    stage = plan.coarse
    more = f", up to {stage.extensions} more if the best is at an end" if stage.extensions else ""
    seeds = count(stage.replicates, "further seed")
    return f"{stage.points} lrs, a factor of {stage.factor:g} apart{more}; {seeds} at the best{_short(plan)}"


def _fine(plan: StudyPlan) -> str:
    trials = plan.fine.trials
    said = f"up to {count(trials, 'lr')} around the best{_short(plan)}" if trials else "no further lr"
    return said if plan.proxy == 1 else f"{said}; then the best and its two neighbours at full length"


def _decay(plan: StudyPlan) -> str:
    names = [schedule_name(family) for family in plan.decayed]
    if not names:
        return "no other schedule"
    extended = plan.decay.extended
    best = "the lr of the best is" if extended == 1 else f"the lrs of the best {extended} are"
    return f"{', '.join(names)}; {best} then moved octave by octave"


def _confirm(plan: StudyPlan) -> str:
    stage = plan.confirm
    seeds = f"{at_least_at_most(stage.seeds, stage.max_seeds)} fresh seeds"
    return f"the best {stage.candidates}, on {seeds}{f'; {BASELINE}, once' if plan.baseline else ''}"


def _short(plan: StudyPlan) -> str:
    return "" if plan.proxy == 1 else f", at {plan.proxy:.0%} of the full length"


def stage_found(found: Findings | None) -> str:
    """What a stage found."""
    match found:
        case None:
            return "not finished"
        case SweepFindings(bracket=ends, verdict=verdict):
            where = "no bracket" if ends is None else f"bracket {bracket(ends.low, ends.high)}"
            return f"{where} ({verdict})"
        case CoarseFindings():
            noise = "" if found.noise is None else f", noise {number(found.noise)}"
            return f"best lr {number(found.lr)}{noise}{', needs warmup' * found.needs_warmup}"
        case FineFindings():
            ends_there = {None: "", "low": ", the lowest tried", "high": ", the highest tried"}
            return f"best lr {number(found.lr)}{ends_there[found.on_edge]}"
        case DecayFindings():
            names = [schedule_at(entry.schedule, entry.lr) for entry in found.order]
            shown = ", ".join(names[:_SHOWN_SCHEDULES])
            more = ", …" if len(names) > _SHOWN_SCHEDULES else ""
            return f"best first: {shown}{more}" if names else "no other schedule was tried"
        case ConfirmFindings():
            return found.winner
