"""What a range test says: a learning rate, a bracket, a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from lrsearch.core import text
from lrsearch.core.findings import Bracket
from lrsearch.core.table import Row, Table
from lrsearch.core.trial import from_plain

Verdict = Literal["ok", "rules_disagree", "never_diverged", "flat", "only_rising", "too_few_points"]


RULES = ("walls", "minimum", "steepest", "valley")
"""The rules side by side; the first is the suggestion."""


RULE_READS = {
    "walls": "a third of the way from where half of the fall is done to the edge",
    "minimum": "a tenth of the lr at the running average's minimum",
    "steepest": "where the loss falls fastest",
    "valley": "halfway down the longest decrease",
}


GROUPS_READ = "lr is that of param group 0; the others keep their ratios to it"


@dataclass(frozen=True)
class Suggestion:
    """What a range test suggests: a learning rate, a bracket, and how far to trust them.

    Parameters
    ----------
    lr : float or None
        The suggested lr; None unless the verdict is ``ok`` or ``rules_disagree``.
    rule : str
        The rule that `lr` comes from.
    bracket : Bracket or None
        Where to look for the best lr, from `low` to `high`; `high` is None if the loss never left its
        minimum.
    verdict : str
        ``ok``: the loss fell, and rose again. ``rules_disagree``: it did, but the rules are more than a
        factor 20 apart. ``never_diverged``: it fell and never regained half of its fall. ``flat``: it moved
        no more than its noise. ``only_rising``: it never fell, and then rose. ``too_few_points``: fewer than
        20 finite losses.
    reason : str
        What was seen, and what to do about it, in words.
    rules : dict of str to float
        Every rule's lr: ``walls``, ``minimum``, ``steepest``, ``valley``.
    spread : tuple of (float, float), optional
        The lowest and the highest suggestion of the single curves, where there are several.
    groups : tuple of float
        The lr of every param group of the optimizer that was swept, of which `lr` is the first. Empty if the
        optimizer was made by a task or a training function, which is given `lr`.

    Notes
    -----
    The suggestion is that of the rule ``walls``: a third of the way, in log lr, from where half of the fall
    is done (descent) to where half of it is regained (edge), but at most half of the lowest loss's lr
    (bottom):

        lr = min(descent**(2/3) * edge**(1/3), bottom / 2)

    Losses are judged by their median in a window, never by a running average. The curves of several seeds are
    combined by medians in log lr.

    References
    ----------
    - ``minimum``: S. Gugger, "How Do You Find A Good Learning Rate", 2018,
      https://sgugger.github.io/how-do-you-find-a-good-learning-rate.html
    - ``valley``: the default rule of fastai, https://docs.fast.ai/callback.schedule.html

    Examples
    --------
    >>> import numpy as np
    >>> import lrsearch
    >>> from lrsearch.core.suggest import suggest
    >>> lrs = np.geomspace(1e-5, 10, 120)
    >>> losses = 1 - 0.9 / (1 + (0.01 / lrs) ** 2) + (lrs / 0.5) ** 2
    >>> found = suggest(lrsearch.RangeTestCurve(lrs, losses))
    >>> found.verdict, found.rule
    ('ok', 'walls')
    >>> 0.01 < found.lr < found.bracket.high < 0.5
    True
    >>> suggest(lrsearch.RangeTestCurve(lrs, np.ones(120))).verdict
    'flat'
    """

    lr: float | None
    rule: str
    bracket: Bracket | None
    verdict: Verdict
    reason: str
    rules: dict[str, float]
    spread: tuple[float, float] | None = None
    groups: tuple[float, ...] = ()

    def with_groups(self, ratios: Sequence[float]) -> Suggestion:
        """Return the same suggestion for several param groups.

        Parameters
        ----------
        ratios : sequence of float
            The ratio of each group's lr to the first group's.

        Returns
        -------
        Suggestion
            The suggestion with `groups` filled in; unchanged if it has no lr.

        Examples
        --------
        >>> import lrsearch
        >>> found = lrsearch.Suggestion(0.1, "walls", None, "ok", "an example", {})
        >>> found.with_groups([1.0, 0.5]).groups
        (0.1, 0.05)
        """
        lr = self.lr
        return self if lr is None else replace(self, groups=tuple(lr * ratio for ratio in ratios))

    def to_dict(self) -> dict[str, Any]:
        """Return the suggestion as plain JSON.

        Returns
        -------
        dict
            What `from_dict` makes an equal suggestion of.
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Suggestion:
        """Return the suggestion that `to_dict` wrote.

        Parameters
        ----------
        values : dict
            What `to_dict` returned.

        Returns
        -------
        Suggestion
            An equal suggestion.
        """
        return from_plain(Suggestion, values)

    def to_table(self) -> Table:
        """Return the suggestion as a table, as a terminal or a notebook shows it.

        Returns
        -------
        Table
            A row a rule, under the suggestion, its bracket and its verdict.
        """
        found = f"rule {self.rule}" if self.lr else "the curve shows none"
        rows: list[Row] = [("suggested lr", text.number(self.lr), found)]
        if len(self.groups) > 1:
            rows.append(("  of the groups", text.groups(self.groups), GROUPS_READ))
        bracket = text.NONE if self.bracket is None else text.bracket(self.bracket.low, self.bracket.high)
        rows += [
            ("verdict", self.verdict, self.reason),
            ("bracket", bracket, "where to search; its upper end is the edge"),
        ]
        rules = [name for name in RULES if name in self.rules]
        rows += [(f"  {name}", text.number(self.rules[name]), RULE_READS[name]) for name in rules]
        return Table(rows, title="suggestion")

    def _repr_html_(self) -> str:
        return self.to_table().to_html()
