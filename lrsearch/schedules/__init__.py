"""Every decay method as a value: its curve in numpy, its recipe for torch by name, its code.

This room knows no torch: `lrsearch.training.schedulers.build` makes the scheduler of a schedule.
"""

from lrsearch.schedules.base import Schedule
from lrsearch.schedules.cycles import CosineRestarts, Cyclic, OneCycle
from lrsearch.schedules.decays import (
    Constant,
    Cosine,
    Exponential,
    InverseTime,
    Linear,
    Multiplicative,
    MultiStep,
    Polynomial,
    Step,
    TimeBased,
)
from lrsearch.schedules.phases import WSD, Warmup
from lrsearch.schedules.plateau import Plateau
from lrsearch.schedules.registry import (
    BUILT_IN,
    FAMILIES,
    decay_names,
    register,
    schedule_from_dict,
    schedule_name,
    schedule_names,
)
from lrsearch.schedules.sweep import Sweep

__all__ = [
    "BUILT_IN",
    "FAMILIES",
    "WSD",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "InverseTime",
    "Linear",
    "MultiStep",
    "Multiplicative",
    "OneCycle",
    "Plateau",
    "Polynomial",
    "Schedule",
    "Step",
    "Sweep",
    "TimeBased",
    "Warmup",
    "decay_names",
    "register",
    "schedule_from_dict",
    "schedule_name",
    "schedule_names",
]
