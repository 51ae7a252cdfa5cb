"""Metrics in the text format of Prometheus. Pure.

Source: Prometheus, exposition formats (text format 0.0.4), and metric and label naming: base units, ``_total`` for
counters, a summary with quantiles over the last inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge_agent.local_api.recent import TIMES, Totals
from wire.codec import Json

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_QUANTILES = (0.5, 0.9, 0.99)
_SETTLED = ("filtered", "sent", "dropped", "cut_off")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFigures:
    """What is exposed. ``release``: labels of the served release; ``requests``: of this interface, by status."""

    totals: Totals
    release: Mapping[str, str]
    sinks: Mapping[str, Json]
    requests: Mapping[int, int]
    start_s: float


def text_of(measured: ServedFigures) -> str:
    """Return the page."""
    return "\n".join(_lines(measured)) + "\n"


def _lines(measured: ServedFigures) -> Iterator[str]:
    totals = measured.totals
    yield from _head("tinyfleet_release_info", "gauge", "The served release, as labels.")
    yield _sample("tinyfleet_release_info", 1, measured.release)
    yield from _head("tinyfleet_inferences_total", "counter", "Inputs that the model answered.")
    yield _sample("tinyfleet_inferences_total", totals.answers)
    yield from _head("tinyfleet_inference_errors_total", "counter", "Inputs that got no answer, by reason.")
    for code, count in sorted(totals.errors.items()):
        yield _sample("tinyfleet_inference_errors_total", count, {"code": code})
    yield from _head("tinyfleet_inputs_dropped_total", "counter", "Inputs that never reached the model.")
    yield _sample("tinyfleet_inputs_dropped_total", totals.dropped)
    help_text = f"Time of the runtime's call; quantiles over the last {TIMES} inputs."
    yield from _summary("tinyfleet_inference_run_seconds", help_text, totals.last_run_s, (totals.run_s, totals.answers))
    help_text = f"Time from taking an input to its answer; quantiles over the last {TIMES} inputs."
    sums = (totals.latency_s, totals.answers)
    yield from _summary("tinyfleet_answer_latency_seconds", help_text, totals.last_latency_s, sums)
    yield from _head("tinyfleet_sink_offered_total", "counter", "Answers offered to a sink, since it was configured.")
    accounts = {name: counts for name, counts in measured.sinks.items() if isinstance(counts, dict)}
    for name, counts in accounts.items():
        yield _sample("tinyfleet_sink_offered_total", counts["offered"], {"sink": name})
    yield from _head("tinyfleet_sink_answers_total", "counter", "Answers a sink is through with, by outcome.")
    for name, counts in accounts.items():
        for outcome in _SETTLED:
            yield _sample("tinyfleet_sink_answers_total", counts[outcome], {"sink": name, "outcome": outcome})
    yield from _head("tinyfleet_api_requests_total", "counter", "Requests to the local interface, by status.")
    for status, count in sorted(measured.requests.items()):
        yield _sample("tinyfleet_api_requests_total", count, {"code": str(status)})
    yield from _head("process_start_time_seconds", "gauge", "Start of the process since the Unix epoch in seconds.")
    yield _sample("process_start_time_seconds", measured.start_s)


def _summary(name: str, help_text: str, values: Sequence[float], sums: tuple[float, int]) -> Iterator[str]:
    yield from _head(name, "summary", help_text)
    ordered = sorted(values)
    for share in _QUANTILES:
        at = ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
        yield _sample(name, at, {"quantile": str(share)})
    yield _sample(f"{name}_sum", sums[0])
    yield _sample(f"{name}_count", sums[1])


def _head(name: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"


def _sample(name: str, value: object, labels: Mapping[str, str] | None = None) -> str:
    inner = ",".join(f'{key}="{_escaped(item)}"' for key, item in (labels or {}).items())
    shown = "NaN" if value != value else value  # noqa: PLR0124 - NaN
    return f"{name}{{{inner}}} {shown}" if inner else f"{name} {shown}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
