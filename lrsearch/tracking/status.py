"""How far a result's record has come on its way to MLflow: shared by range tests and studies."""

from __future__ import annotations

from lrsearch.tracking import destination as destinations
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.progress import load_state
from lrsearch.tracking.sync import Mirror

_TIMEOUT_S = 60.0


class RecordStatus:
    """A result that lies in a folder and is mirrored in MLflow; `folder` is None without tracking."""

    folder: StudyFolder | None
    mirror: Mirror | None
    key: str | None

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run.

        Reading it waits up to a minute for the mirror. It is None if the run is still pending then, and if
        tracking is off.
        """
        return self._run_id(timeout=_TIMEOUT_S)

    @property
    def run_id_now(self) -> str | None:
        """MLflow's id of the run, without waiting; None where it is pending or tracking is off."""
        return self._run_id(timeout=0)

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
        """Wait until MLflow has everything.

        Parameters
        ----------
        timeout : float
            The longest wait, in seconds.

        Returns
        -------
        bool
            Whether MLflow has everything. False if there is no mirror to wait for: without tracking, and for
            a result that was loaded.
        """
        return self.mirror is not None and self.mirror.wait(timeout)
