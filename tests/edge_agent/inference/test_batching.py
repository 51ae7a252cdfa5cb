"""Counting a little after the inference."""

from collections.abc import Callable

from edge_agent.inference.batching import MAX_WAITING, ResultBatcher
from edge_agent.inference.reservoir import Reservoir, SampleRequest
from edge_agent.inference.served_model import load_model


def test_inferences_wait_for_their_like_and_are_counted_once(bundle: Callable, tiny: dict) -> None:
    """Nothing is counted before there are sixteen or the counters are read; then all are counted, once."""
    results = ResultBatcher(load_model(bundle()))
    images = [tiny["png"](image) for image in tiny["images"](MAX_WAITING + 3)]
    for index, data in enumerate(images):
        results.add(results.model.infer(data), data, index)
        assert results.model.counter.n == (0 if index < MAX_WAITING - 1 else MAX_WAITING)
    figures = results.take_heartbeat().figures(0)
    assert (figures["n"], sum(figures["classes"])) == (MAX_WAITING + 3, MAX_WAITING + 3)
    assert results.model.counter.take().n == MAX_WAITING + 3
    assert results.take_heartbeat().figures(0)["n"] == 0


def test_large_images_do_not_pile_up(bundle: Callable, tiny: dict) -> None:
    """A megabyte of waiting pixels is counted at once."""
    results = ResultBatcher(load_model(bundle()))
    outcome = results.model.infer(tiny["png"](tiny["images"](1)[0].repeat(80, axis=0).repeat(80, axis=1)))
    results.add(outcome, b"", 0)
    assert outcome.image.nbytes > 1 << 20
    assert results.model.counter.n == 1


def test_samples_are_offered_with_what_the_model_said(bundle: Callable, tiny: dict) -> None:
    """Prediction and confidence of a sample are those of its own image."""
    results = ResultBatcher(load_model(bundle()))
    results.reservoirs = [Reservoir(SampleRequest(request="r", count=5, budget_bytes=1 << 20), "0")]
    images = [tiny["png"](image) for image in tiny["images"](5)]
    outcomes = [results.model.infer(data) for data in images]
    for index, data in enumerate(images):
        results.add(outcomes[index], data, index)
    results.settle()
    chosen = list(results.reservoirs[0].close_window())
    assert [item.candidate.data for item in chosen] == images
    assert [item.candidate.predicted for item in chosen] == [int(outcome.logits.argmax()) for outcome in outcomes]
