"""What a range test gives back, and how it is read again from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lrsearch.core.curve import RangeTestCurve
from lrsearch.core.suggest import Suggestion, suggest
from lrsearch.errors import RecordError
from lrsearch.tracking import destination as destinations
from lrsearch.tracking.folder import StudyFolder, find_folder
from lrsearch.tracking.journal import read_start
from lrsearch.tracking.state import load_state
from lrsearch.tracking.sync import Mirror

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_TIMEOUT_S = 60.0


@dataclass(frozen=True, repr=False)
class RangeTest:
    """The curves of a range test, one a seed, and the suggestion read from them.

    `folder` holds the record, None without tracking.
    """

    curves: tuple[RangeTestCurve, ...]
    suggestion: Suggestion
    task: str
    folder: StudyFolder | None = None
    mirror: Mirror | None = field(default=None, compare=False)
    key: str | None = None

    def __repr__(self) -> str:
        found = self.suggestion
        return f"RangeTest({self.task!r}, lr={found.lr}, verdict={found.verdict!r}, steps={self.steps})"

    @property
    def suggestions(self) -> tuple[Suggestion, ...]:
        """The suggestion of each seed's curve alone."""
        return tuple(suggest(curve) for curve in self.curves)

    @property
    def lr(self) -> float | None:
        """The suggested lr; None unless the verdict is ``ok`` or ``rules_disagree``."""
        return self.suggestion.lr

    @property
    def steps(self) -> int:
        """Finite losses recorded, of all curves."""
        return sum(curve.steps for curve in self.curves)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; waits up to a minute for the mirror, None where it is pending still or
        tracking is off.
        """
        return self._run_id(timeout=_TIMEOUT_S)

    def _run_id(self, timeout: float) -> str | None:
        if self.folder is None or self.key is None:
            return None
        if self.mirror is not None:
            return self.mirror.run_id(self.key, timeout)
        kept = load_state(self.folder)
        return kept.runs[self.key].run_id if kept is not None and self.key in kept.runs else None

    @property
    def tracking(self) -> str:
        """Whether MLflow has everything: ``synced``, ``pending`` or ``off``."""
        if self.folder is None:
            return "off"
        if self.mirror is not None:
            return "synced" if self.mirror.synced() else "pending"
        kept = load_state(self.folder)
        whole = kept is not None and kept.state == "synced" and kept.covers(self.folder)
        return "synced" if whole else "pending"

    @property
    def tracking_uri(self) -> str | None:
        """The MLflow server that the record goes to, without its password; None without tracking."""
        destination = self.folder and destinations.load(self.folder)
        return destination.redacted().tracking_uri if destination else None

    def wait(self, timeout: float = _TIMEOUT_S) -> bool:
        """Waits at most `timeout` seconds until MLflow has everything; returns whether it has."""
        return self.mirror is not None and self.mirror.wait(timeout)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws loss against lr, with the suggestion and the bracket, on `ax` or a new figure; returns the
        axes.
        """
        from lrsearch.report.plots import plot_range_test

        return plot_range_test(self.curves, self.suggestion, title=self.task, ax=ax)

    def to_frame(self) -> pd.DataFrame:
        """One row a step: step, seed, lr, loss, loss_smoothed, loss_median."""
        import pandas as pd

        return pd.concat([curve.to_frame() for curve in self.curves], ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; absent values are None, and so is a run_id that is pending still."""
        found = self.suggestion.to_dict()
        return {
            **{
                name: found[name]
                for name in ("lr", "rule", "bracket", "verdict", "reason", "rules", "spread")
            },
            "task": self.task,
            "steps": self.steps,
            "stopped_at": self.curves[0].stopped_at if len(self.curves) == 1 else None,
            "curves": [
                {
                    "seed": curve.seed,
                    "steps": curve.steps,
                    "stopped_at": curve.stopped_at,
                    "stop_reason": curve.stop_reason,
                }
                for curve in self.curves
            ],
            "name": self.folder and self.folder.name,
            "folder": self.folder and str(self.folder.path),
            "run_id": self._run_id(timeout=0),
            "tracking": self.tracking,
        }

    def _repr_html_(self) -> str:
        from lrsearch.report.tables import range_test_html

        return range_test_html(self.curves, self.suggestion, self.task)


def load_range_test(folder: StudyFolder) -> RangeTest:
    """Reads a range test from its folder; RecordError where its file is missing or damaged."""
    path = folder.path / "curve.json"
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        curves = tuple(RangeTestCurve.from_dict(curve) for curve in values["curves"])
        suggestion = Suggestion.from_dict(values["suggestion"])
        starts = [read_start(journal) for journal in folder.journals()]
        key = next((start.key for start in starts if start.kind == "range_test"), None)
        return RangeTest(curves, suggestion, task=values["task"], folder=folder, key=key)
    except FileNotFoundError:
        raise RecordError(f"{folder.name}: no finished range test there ({path} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is damaged: {error!r}") from error


def load(name: str) -> RangeTest:
    """The result of an earlier range test, by its name.

    Raises InputError for an unknown name, listing those there are, and RecordError for a damaged record.
    """
    return load_range_test(find_folder(name))
