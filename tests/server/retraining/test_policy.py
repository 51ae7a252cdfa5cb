"""Which verdicts start a retraining."""

from __future__ import annotations

import pytest

from server.drift.ledger import StoredVerdict
from server.drift.verdicts import VerdictKind
from server.retraining.config import RetrainingConfig
from server.retraining.policy import may_start


@pytest.mark.parametrize(("kind", "provisional", "starts"), [
    (VerdictKind.SITE, False, True), (VerdictKind.SITE, True, False), (VerdictKind.DEVICE_LOCAL, False, False),
])  # fmt: skip
def test_a_provisional_verdict_starts_no_retraining(kind: VerdictKind, *, provisional: bool, starts: bool) -> None:
    """Its devices' baselines are not complete; once they are, the same verdict does."""
    verdict = StoredVerdict(
        id=1, key="site:north", kind=kind, first_window_ms=0, last_window_ms=0, windows=1, opened_ms=1, closed_ms=0,
        devices=("a", "b"), attributes={"site": "north"}, cause="darker", action="", detail="", release="m-1",
        model="m", provisional=provisional,
    )  # fmt: skip
    assert may_start(verdict, (), RetrainingConfig(), 0) == starts
