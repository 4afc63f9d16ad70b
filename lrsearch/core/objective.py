"""What is optimised: a metric of the trials, and which way it is better."""

from __future__ import annotations

from pydantic import Field

from lrsearch.core.sweep_plan import PlanPart
from lrsearch.core.trial import Direction, TrialResult, Use, is_loss
from lrsearch.errors import InputError

_LOWER_IS_BETTER = ("loss", "nll", "mse", "rmse", "mae", "error", "perplexity", "ppl", "wer", "cer")


_HIGHER_IS_BETTER = (
    *("acc", "accuracy", "f1", "auc", "auroc", "precision", "recall", "r2", "bleu", "rouge", "iou", "dice"),
)


class Objective(PlanPart):
    """What is optimised: a metric as trials report it, its final value or its best.

    Without a direction, the name after its last ``/`` decides, as `direction_of` has it.
    """

    metric: str = Field("val/loss", min_length=1, description="name a metric that trials report")
    direction: Direction | None = Field(None, description="choose 'minimize' or 'maximize'")
    use: Use = Field("final", description="choose 'final' or 'best'")

    @property
    def towards(self) -> Direction:
        """The direction, given or told by the metric's name; InputError where neither says it."""
        found = self.direction or direction_of(self.metric)
        if found is None:
            raise InputError(
                "objective.direction",
                self.direction,
                f"the name {self.metric!r} does not say whether lower or higher is better",
                "give direction='minimize' or 'maximize', on the command line --direction",
            )
        return found

    @property
    def best_mean(self) -> str:
        """What the best of several is called: ``highest mean val/accuracy``."""
        return f"{'lowest' if self.towards == 'minimize' else 'highest'} mean {self.metric}"

    def as_loss(self, result: TrialResult) -> float | None:
        """The objective of a trial with its sign turned so that lower is better; None where not reported."""
        summary = result.metrics.get(self.metric)
        if summary is None:
            return None
        value = summary.read(self.use, self.towards)
        return value if self.towards == "minimize" else -value

    def initial_loss(self, result: TrialResult) -> float | None:
        """The objective before the training, sign turned likewise; None where nothing tells it.

        It is the first of several values; of a loss that is reported once it is the first training loss.
        """
        summary = result.metrics.get(self.metric)
        if summary is not None and summary.count > 1:
            return summary.first if self.towards == "minimize" else -summary.first
        return self.untrained_loss(result)

    def untrained_loss(self, result: TrialResult) -> float | None:
        """The untrained model's objective, sign turned likewise; None where nothing tells it.

        Of a loss that was not measured before the training it is the first training loss.
        """
        summary = result.metrics.get(self.metric)
        if summary is not None and summary.untrained is not None:
            return summary.untrained if self.towards == "minimize" else -summary.untrained
        return result.initial_loss if is_loss(self.metric) and self.towards == "minimize" else None

    def from_loss(self, loss: float) -> float:
        """The objective's own value of what `as_loss` turned."""
        return loss if self.towards == "minimize" else -loss


def direction_of(metric: str) -> Direction | None:
    """Which way a metric is better whose name after the last ``/`` is a usual one, else None.

    ``loss``, ``nll``, ``mse``, ``rmse``, ``mae``, ``error``, ``perplexity``, ``ppl``, ``wer`` and ``cer`` are
    minimised; ``acc``, ``accuracy``, ``f1``, ``auc``, ``auroc``, ``precision``, ``recall``, ``r2``, ``bleu``,
    ``rouge``, ``iou`` and ``dice`` are maximised, in whatever case.
    """
    name = metric.rpartition("/")[2].lower()
    if name in _LOWER_IS_BETTER:
        return "minimize"
    return "maximize" if name in _HIGHER_IS_BETTER else None
