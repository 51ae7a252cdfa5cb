"""Which verdicts start a retraining."""

from __future__ import annotations

import pytest

from server.drift.ledger import StoredVerdict
from server.drift.verdicts import VerdictKind
from server.retraining.config import RetrainingConfig
from server.retraining.harm import LabelledScene
from server.retraining.policy import RetrainingPhase, Trigger, TriggerFacts, advance, may_start


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


@pytest.mark.parametrize(("phase", "labelled", "text"), [
    (RetrainingPhase.HARMFUL, 0, ("0 of 5 labelled samples, and 45 more are 'none of these', which isn't trained with; "
     "label samples that show a class; if the model is to know what these show, add a class and its data to the "
     "recipe, and run it")),
    (RetrainingPhase.HARMFUL, 5, "5 of 5 labelled samples, and 45 more are 'none of these', which isn't trained with"),
    (RetrainingPhase.COLLECTING, 2, ("no audited scene is labelled yet; 2 labelled, and 45 "
     "more are 'none of these', which isn't trained with")),
])  # fmt: skip
def test_labels_that_nothing_is_trained_with_are_counted_and_named(
    phase: RetrainingPhase, labelled: int, text: str
) -> None:
    """A person who labelled 45 samples reads where they went, and what to do instead."""
    trigger = Trigger(
        id=1, model="m", cause="c", words="w", verdict=0, devices=("a",), since_ms=0, release="m-1", phase=phase,
        opened_ms=1, updated_ms=1,
    )  # fmt: skip
    config = RetrainingConfig(min_labelled=5)
    moved, _ = advance(trigger, TriggerFacts(labelled=labelled, nothing=45), config, 2)
    assert moved.text == text
    without, _ = advance(trigger, TriggerFacts(labelled=labelled), config, 2)
    assert "none of these" not in without.text


@pytest.mark.parametrize(("audited", "approved", "phase"), [
    ((LabelledScene(1, 0.0),), False, RetrainingPhase.COLLECTING),
    ((LabelledScene(1, 1.0),), False, RetrainingPhase.HARMFUL),
    ((LabelledScene(1, 0.0),), True, RetrainingPhase.HARMFUL), ((), False, RetrainingPhase.HARMFUL),
])  # fmt: skip
def test_harm_that_a_wrong_label_showed_is_taken_back_with_it(
    audited: tuple[LabelledScene, ...], phase: RetrainingPhase, *, approved: bool
) -> None:
    """One slip of a finger makes no training job for good; what a person approved, and what no label denies, stays."""
    trigger = Trigger(
        id=1, model="m", cause="c", words="w", verdict=0, devices=("a",), since_ms=0, release="m-1",
        phase=RetrainingPhase.HARMFUL, approved=approved, opened_ms=1, updated_ms=1,
    )  # fmt: skip
    moved, _ = advance(trigger, TriggerFacts(audited=audited), RetrainingConfig(min_labelled=5), 2)
    assert moved.phase is phase
