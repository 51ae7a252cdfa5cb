"""How often a gate split has been looked at, and the risk that is left for each look. Pure.

Decides what counts as another look, and at which confidence it is judged. Every candidate that is judged on one split,
and every judgement after more rows were labelled, or labelled otherwise, is another chance for one that is worse by the
margin: of ten such candidates 39 % of the lots pass one at 5 % each. So the looks at one split share the risk: the
shares sum to 1, and all together keep it, however they depend on each other (Bonferroni). With N planned looks each has
an N-th. Without a plan the first has nine tenths, because most splits are used once, and the others divide the rest
among them, each less than the one before; look 20 needs four times the rows of the first, and is the last.

The plan is made before the first look: made later, it would depend on what was seen. Rows that nobody has looked at
begin a new ledger; a split that shares a row with one of before continues its ledger. Does not read or write files.

Source: K. K. G. Lan, D. L. DeMets, Discrete sequential boundaries for clinical trials, Biometrika 70 (1983) 659-663
(spending); ``scripts/bench/gates.py`` compares this schedule with others and with an anytime-valid bet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scipy import stats

from compressor.gates.evidence import GateRecipe
from compressor.statistics.power import POWER
from wire.canonical import sha256_hex

FIRST = 0.9
"""The first look's share of the risk without a plan. An equal model that passes in 80 % of the cases at the whole risk
does so in 78 %; with .8 in 77 %, with 6 / pi squared in 73 %."""
LAST = 20
"""The number of looks at a split without a plan."""
_DIGITS = 16
"""Hexadecimal digits of a row's hash that the ledger keeps: two of a million rows agree once in 37 million ledgers."""
_ELSEWHERE = "elsewhere"
_REMARK = re.compile(r"Look [0-9]+( of [0-9]+ planned)? at this gate split: ")
_JUDGED = re.compile(r"\S+ [0-9a-f]+ [0-9]+( [0-9a-f]+)?")


def share_of(number: int, planned: int = 0) -> float:
    """Return the share of the risk of look ``number``, from 1, of ``planned`` (0: no plan); 0 beyond the last."""
    if number > (planned or LAST):
        return 0.0
    if planned:
        return 1 / planned
    return FIRST if number == 1 else (1 - FIRST) / (number * (number - 1)) / (1 - 1 / LAST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a gate split of ``rows`` rows: its ``number`` of ``planned`` (0: no plan).

    ``split``: the digest of the rows; ``labels``: that of their labels, "" if it is not known; ``ledger``: that of the
    candidates, rows and labels of all looks up to this one. ``number`` 0: nothing was judged with a bound, so that no
    risk is spent.
    """

    number: int = 0
    planned: int = 0
    rows: int = 0
    split: str = ""
    labels: str = ""
    ledger: str = ""

    @property
    def share(self) -> float:
        """Its share of the risk; 1 if nothing is counted."""
        return share_of(self.number, self.planned) if self.number else 1.0

    @property
    def last(self) -> int:
        """The number of the last look at the split; 0 if nothing is counted."""
        return (self.planned or LAST) if self.number else 0

    def rules(self, rules: Sequence[GateRecipe]) -> tuple[GateRecipe, ...]:
        """Return ``rules`` at the confidence of this look."""
        return tuple(replace(rule, confidence=1 - (1 - rule.confidence) * self.share) for rule in rules)

    def remark(self, *risks: float) -> str:
        """Return what a reader of the certificate must know, "" for no look, or a first one without a plan.

        ``risks``: those of the gates over all looks, 1 - their confidence, the largest first; none: no gate has a
        bound.
        """
        if not risks or self.number < (1 if self.planned else 2):
            return ""
        of = f" of {self.planned} planned" if self.planned else ""
        cost = times_the_rows(risks[0] * (1 if self.planned else FIRST), risks[0] * self.share)
        named = " or ".join(f"{risk:.3g}" for risk in risks) + (", each gate its own" if len(risks) > 1 else "")
        said = (
            f"Look {self.number}{of} at this gate split: it has {self.share:.2g} of the risk of {named}, which all "
            f"looks together keep; an equal model needs {cost:.1f} times the rows of a "
            f"{'single' if self.planned else 'first'} look."
        )
        if self.number < self.last:
            return said
        return f"{said} It was the last, the split is used up: {_fresh(self.rows)}."


UNCOUNTED = Look()


def is_remark(text: str) -> bool:
    """Return whether ``text`` is what ``Look.remark`` says of some look."""
    return _REMARK.match(text) is not None


def _fresh(rows: int) -> str:
    return (
        f"the next candidate needs a gate split of about {rows} rows that nobody has looked at "
        "(a column `split` in the data puts them there, and the old ones into train)"
    )


def times_the_rows(risk: float, now: float) -> float:
    """Return how many times the rows at ``risk`` an equal model needs for the same power at the risk ``now``.

    Source: the normal approximation, as in ``power.approximate_samples_for``.
    """
    if now <= 0:
        return float("inf")
    before, after = (float(stats.norm.isf(edge)) + float(stats.norm.ppf(POWER)) for edge in (risk, now))
    return (after / before) ** 2


def split_of(hashes: Iterable[str]) -> str:
    """Return the digest of the gate split of the rows of ``hashes``, whatever their order."""
    return sha256_hex("".join(sorted({content[:_DIGITS] for content in hashes})).encode())


def labels_of(hashes: Iterable[str], labels: Iterable[str]) -> str:
    """Return the digest of the ``labels`` of the rows of ``hashes``, whatever their order."""
    pairs = sorted(f"{content[:_DIGITS]} {label}" for content, label in zip(hashes, labels, strict=True))
    return sha256_hex("\n".join(pairs).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The looks at one gate split. ``planned``: how many there may be, 0: no plan.

    ``candidates``: what was judged at each look, in order, as ``CANDIDATE ROWS NUMBER LABELS``: the digests of the
    candidate and of the rows, their number, and the digest of their labels, which an older version left out; or
    ``elsewhere``. ``seen``: the rows that were looked at, by the first digits of their hashes, sorted.
    """

    planned: int = 0
    candidates: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgers:
    """The ledgers of all gate splits that were looked at; no two have a row in common."""

    splits: tuple[Ledger, ...] = ()

    def after(
        self, candidate: str, hashes: Iterable[str], planned: int, least: int = 1, *, labels: str = ""
    ) -> tuple[Ledgers, Look]:
        """Return the ledgers after a look of ``candidate`` at the rows of ``hashes``, and the look.

        The same candidate on the same rows with the same ``labels`` (their digest) is no further look; that of an older
        version, whose labels nobody knows, is taken for the one with these. ``planned``: for a first look. ``least``:
        the number that the look has at least, where others count too. Rows of several ledgers join these.
        """
        rows = {content[:_DIGITS] for content in hashes}
        known = [ledger for ledger in self.splits if rows.intersection(ledger.seen)]
        ledger = Ledger(
            planned=known[0].planned if known else planned,
            candidates=tuple(one for ledger in known for one in ledger.candidates),
            seen=tuple(sorted(rows.union(*(ledger.seen for ledger in known)))),
        )
        split = split_of(rows)
        unlabelled = f"{candidate[:_DIGITS]} {split[:_DIGITS]} {len(rows)}"
        judged = f"{unlabelled} {labels[:_DIGITS]}".rstrip()
        candidates = tuple(judged if one == unlabelled else one for one in ledger.candidates)
        if judged not in candidates:
            unseen = (_ELSEWHERE,) * (least - 1 - len(candidates))
            candidates = (*candidates, *unseen, judged)
        number = candidates.index(judged) + 1
        look = Look(
            number=number,
            planned=ledger.planned,
            rows=len(rows),
            split=split,
            labels=labels,
            ledger=sha256_hex("\n".join(candidates[:number]).encode()),
        )
        others = tuple(ledger for ledger in self.splits if ledger not in known)
        return Ledgers(splits=(*others, replace(ledger, candidates=candidates))), look


def unsound(ledgers: Ledgers) -> str:
    """Return why ``ledgers`` can't have been written here, "" if they can."""
    known: set[str] = set()
    for ledger in ledgers.splits:
        if ledger.planned < 0 or not ledger.candidates or not ledger.seen:
            return (
                f"a split planned for {ledger.planned} looks with {len(ledger.candidates)} at {len(ledger.seen)} rows"
            )
        for judged in ledger.candidates:
            if judged != _ELSEWHERE and _JUDGED.fullmatch(judged) is None:
                return f"a look at {judged[:60]!r}"
        if list(ledger.seen) != sorted(set(ledger.seen)) or not known.isdisjoint(ledger.seen):
            return "rows that are not in order, or in two splits"
        known.update(ledger.seen)
    return ""


def used_up(look: Look) -> str:
    """Return why the split of ``look`` can't be judged on any more, and what to do; "" if it can."""
    if look.number <= look.last:
        return ""
    planned = ", as planned before the first" if look.planned else ""
    message = f"Expected at most {look.last} looks at this gate split{planned}, got another: it is used up"
    return f"{message}; {_fresh(look.rows)}"
