"""Inputs of the release before are answered again after a swap, and how many answers differ is counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from edge_agent.inference import replay
from edge_agent.inference.replay import KeptInputs, Replay
from edge_agent.inference.served_model import load_model
from edge_agent.tasks import TaskAnswer
from wire.codec import decode
from wire.shadow import ShadowCounts


def _kept(bundle: Callable, tiny: dict, count: int, seed: int = 1) -> KeptInputs:
    kept, model = KeptInputs(chance=random.Random(seed)), load_model(bundle(version=1))  # noqa: S311 - seeded
    for image in tiny["images"](count, seed):
        data = tiny["png"](image)
        kept.offer(data, model, model.infer(data))
    return kept


def _counts(running: Replay, model: object) -> ShadowCounts:
    while (counts := running.step(model)) is None:
        pass
    return counts


def test_a_swap_answers_kept_inputs_again_and_tells_once(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict
) -> None:
    """In a real child: nothing is counted as served twice."""
    running = child(bundle(version=1))
    running.until("ready")
    drop({f"{index:04}.png": tiny["png"](image) for index, image in enumerate(tiny["images"](12, 1))})
    running.until("beat", lambda _: sum(one.header["n"] for one in running.heard if one.kind == "beat") == 12)
    running.tell(type="swap", bundle=str(bundle(version=2)))
    frame = running.until("replay")
    counts = decode(ShadowCounts, frame.payload)
    assert (counts.n + counts.errors, counts.disagreed) == (12, sum(pair.n for pair in counts.pairs))
    assert frame.header["bundle"] == str(bundle(version=2))
    running.tell(type="stop")
    assert running.end() == 0
    assert sum(one.header["n"] for one in running.heard if one.kind == "window") == 12
    assert len([one for one in running.heard if one.kind == "replay"]) == 1


def test_a_swap_to_the_same_artifact_is_not_replayed_and_no_inputs_are_none(bundle: Callable, child: Callable) -> None:
    """A device without inputs says so by counts of zero."""
    running = child(bundle(version=1))
    running.until("ready")
    running.tell(type="swap", bundle=str(bundle(version=2)))
    counts = decode(ShadowCounts, running.until("replay").payload)
    assert (counts.n, counts.errors) == (0, 0)
    running.tell(type="stop")
    assert running.end() == 0


def test_a_model_answers_its_own_inputs_alike(bundle: Callable, tiny: dict) -> None:
    """The same release before and after: no disagreement, and the time of each run is counted."""
    counts = _counts(Replay(_kept(bundle, tiny, 20)), load_model(bundle(version=1)))
    assert (counts.n, counts.disagreed, counts.errors) == (20, 0, 0)
    assert sum(counts.run_steps.values()) == 20


def test_other_labels_and_inputs_that_can_not_be_answered_are_counted(bundle: Callable, tiny: dict) -> None:
    """Each kept input ends in one of the counts."""
    kept = _kept(bundle, tiny, 6)
    kept.items[0] = (kept.items[0][0], replace(kept.items[0][1], label="other"))
    kept.items[1] = (b"no image", TaskAnswer(label="1"))
    counts = _counts(Replay(kept), load_model(bundle(version=1)))
    assert (counts.n, counts.disagreed, counts.errors) == (5, 1, 1)
    assert counts.pairs[0].champion == "other"


def test_inputs_of_another_form_are_skipped_and_no_other_answers(bundle: Callable, tiny: dict) -> None:
    """After a release that reads longer windows the source gives such ones; those that were kept say nothing of it."""
    kept = _kept(bundle, tiny, 3)
    kept.items[1] = (b"a shorter window", TaskAnswer(label="1"))
    counts = _counts(Replay(kept, alike=False), load_model(bundle(version=1)))
    assert (counts.n, counts.disagreed, counts.errors, counts.skipped) == (2, 0, 0, 1)


def test_what_is_kept_is_bounded_and_uniform(bundle: Callable, tiny: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many inputs and bytes; early and late inputs are kept alike; a huge one is left out."""
    model = load_model(bundle(version=1))
    outcome = model.infer(tiny["png"](tiny["images"](1)[0]))
    monkeypatch.setattr(replay, "KEPT_BYTES", 40_000)
    late = 0
    for seed in range(40):
        kept = KeptInputs(chance=random.Random(seed))  # noqa: S311 - seeded
        for number in range(300):
            kept.offer(number.to_bytes(2, "big") * 500, model, outcome)
        assert 0 < len(kept.items) <= 40
        late += sum(int.from_bytes(data[:2], "big") >= 150 for data, _ in kept.items) / len(kept.items)
    kept.offer(b"0" * (replay.KEPT_BYTES * 8), model, outcome)
    assert late / 40 == pytest.approx(0.5, abs=0.08)
    assert max(len(data) for data, _ in kept.items) == 1000
