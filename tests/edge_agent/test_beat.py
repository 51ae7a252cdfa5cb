"""The content of a heartbeat."""

from edge_agent.inference.batching import HeartbeatCounts


def test_a_beat_has_counts_classes_and_quantiles() -> None:
    """An output without a class counts as an inference; an empty heartbeat is all zeros."""
    beat = HeartbeatCounts(3)
    for index in range(100):
        beat.inference(index % 2, float(index))
    beat.inference(-1, 1000.0)
    beat.error()
    figures = beat.figures(dropped=7)
    assert figures == {"n": 101, "errors": 1, "dropped": 7, "p50_ms": 50.0, "p95_ms": 95.0, "classes": [50, 50, 0]}
    assert HeartbeatCounts(3).figures(0) == {
        "n": 0,
        "errors": 0,
        "dropped": 0,
        "p50_ms": 0.0,
        "p95_ms": 0.0,
        "classes": [0, 0, 0],
    }
