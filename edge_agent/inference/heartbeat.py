"""Figures of a heartbeat: counts since the last one."""

from __future__ import annotations

from wire.codec import Json

MAX_LATENCIES = 4096


class HeartbeatCounts:
    """Counts from one heartbeat to the next; ``p50_ms`` and ``p95_ms`` are of the runtime call only."""

    def __init__(self, classes: int) -> None:
        """Start from zero, for a model of ``classes`` classes."""
        self._n = self._errors = 0
        self._latencies_ms: list[float] = []
        self._classes = [0] * classes

    def inference(self, predicted: int, run_ms: float) -> None:
        """Count one inference; -1 means no class (the logits were not numbers)."""
        self._n += 1
        if 0 <= predicted < len(self._classes):
            self._classes[predicted] += 1
        if len(self._latencies_ms) < MAX_LATENCIES:
            self._latencies_ms.append(run_ms)

    def error(self) -> None:
        """Count one image that could not be served."""
        self._errors += 1

    def figures(self, dropped: int) -> dict[str, Json]:
        """Return the figures of the heartbeat; ``dropped`` images never reached the model."""
        ordered = sorted(self._latencies_ms)
        return {
            "n": self._n,
            "errors": self._errors,
            "dropped": dropped,
            "p50_ms": round(_quantile(ordered, 0.50), 4),
            "p95_ms": round(_quantile(ordered, 0.95), 4),
            "classes": list(self._classes),
        }


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
