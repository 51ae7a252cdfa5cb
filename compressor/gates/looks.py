"""How often a gate split has been looked at, and the risk that is left for each look. Pure.

Decides what counts as another look, and at which confidence it is judged. Every candidate that is judged on one split,
and every judgement after more rows were labelled, is another chance for one that is worse by the margin: of ten such
candidates 39 % of the lots pass one at 5 % each. With N planned looks each has an N-th of the risk, so that all
together keep it, however they depend on each other (Bonferroni). Without a plan each look has the whole risk, and the
certificate says what that amounts to.

The plan is made before the first look: made later, it would depend on what was seen. Rows that nobody has looked at
begin a new ledger. Does not read or write files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from compressor.gates.evidence import GateRecipe

_DIGITS = 16
"""Hexadecimal digits of a row's hash that the ledger keeps: two of a million rows agree once in 37 million ledgers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The looks at one gate split. ``planned``: how many there may be, 0: no plan.

    ``candidates``: what was judged at each look, in order, as ``DIGEST ROWS``: the candidate's digest and the number of
    rows; ``seen``: the rows that were looked at, by the first digits of their hashes, sorted.
    """

    planned: int = 0
    candidates: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()

    def after(self, candidate: str, hashes: Iterable[str], planned: int) -> Ledger:
        """Return the ledger after a look of ``candidate`` at the rows of ``hashes``; ``planned``: for a first look.

        The same candidate on the same rows is no further look. Rows of which none was seen begin a new ledger.
        """
        rows = {content[:_DIGITS] for content in hashes}
        known = self if rows.intersection(self.seen) else Ledger(planned=planned)
        look = f"{candidate} {len(rows)}"
        if look in known.candidates and rows <= set(known.seen):
            return known
        return replace(known, candidates=(*known.candidates, look), seen=tuple(sorted(rows.union(known.seen))))

    @property
    def used_up(self) -> bool:
        """Whether there were more looks than planned."""
        return 0 < self.planned < len(self.candidates)

    def rules(self, rules: Sequence[GateRecipe]) -> tuple[GateRecipe, ...]:
        """Return ``rules`` at the confidence of one look."""
        return tuple(replace(rule, confidence=1 - (1 - rule.confidence) / max(self.planned, 1)) for rule in rules)

    @property
    def remark(self) -> str:
        """What a reader of the certificate must know; "" for the only look."""
        number = len(self.candidates)
        if self.planned > 1:
            return f"Look {number} of {self.planned} planned at this gate split: each has 1/{self.planned} of the risk."
        if self.planned or number < 2:  # noqa: PLR2004 - the first needs no remark
            return ""
        return (
            f"Look {number} at this gate split: that one of {number} candidates passes although each is worse by the "
            f"margin has a risk of up to {min(number * 5, 100)} %, not 5 %; --looks, before the first, keeps it at 5 %."
        )
