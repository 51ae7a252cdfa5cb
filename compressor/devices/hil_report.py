"""The report of a session on devices: ``hil.json`` for programs, ``hil.html`` for people; JUnit XML is pytest's own.

Decides which figures of a device are shown. The verdict is pass only if a test ran on a device and none failed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from compressor.devices.inventory import Entry, kind_of
from compressor.devices.under_test import BundleUnderTest, DeviceUnderTest
from compressor.report.page import card
from wire.durable import write_atomically

SCHEMA = 1
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_WORDS = {0: "pass", 1: "fail", 5: "inconclusive"}
_SHOWN = (
    ("accuracy", "accuracy", 1, "{:.4f}"), ("host_accuracy", "here", 1, "{:.4f}"),
    ("host_flips", "other answers than here", 1, "{:.0f}"), ("golden_max_abs", "golden difference", 1, "{:.3g}"),
    ("golden_flips", "golden flips", 1, "{:.0f}"), ("latency_p50_ms", "p50 ms", 1, "{:.3g}"),
    ("latency_p95_ms", "p95 ms", 1, "{:.3g}"),
    ("host_latency_p95_ms", "p95 here", 1, "{:.3g}"), ("peak_memory_bytes", "memory MB", 1e-6, "{:.1f}"),
    ("temperature_celsius", "°C", 1, "{:.0f}"), ("throttle_events", "throttled", 1, "{:.0f}"),
    ("energy_mj", "mJ an inference", 1, "{:.3g}"),
)  # fmt: skip
_ZERO_IS_UNKNOWN = frozenset({"temperature_celsius", "energy_mj"})


def figures_of(device: object, bundle: object, host: object) -> dict[str, float | str]:
    """Return what was measured of ``bundle`` on ``device`` so far: the report's figures, the accuracy and the facts.

    What this ``host`` answered to the same rows, if it was measured, is compared.
    """
    if not isinstance(device, DeviceUnderTest) or not isinstance(bundle, BundleUnderTest):
        return {}
    key = bundle.subject.artifact_sha256, bundle.subject.n
    answer = device.answers.get(key)
    if answer is None:
        return {}
    report = answer.report
    found: dict[str, float | str] = {name: getattr(report, name) for name, *_ in _SHOWN if hasattr(report, name)}
    if bundle.labels is not None:
        found["accuracy"] = bundle.accuracy(answer)
        if isinstance(host, DeviceUnderTest) and key in host.answers:
            found["host_accuracy"] = bundle.accuracy(host.answers[key])
            found["host_flips"] = bundle.flips(answer, host.answers[key])
            found["host_latency_p95_ms"] = host.answers[key].report.latency_p95_ms
    return {**found, **{f"fact_{name}": value for name, value in report.facts.items()}}


def write(folder: Path, entries: Mapping[str, Entry], rows: Sequence[Mapping[str, Any]], exit_code: int) -> None:
    """Write ``hil.json`` and ``hil.html`` to ``folder``; ``exit_code``: of the session."""
    verdict = _WORDS.get(exit_code, "fail")
    devices = {
        name: {"kind": kind_of(entry), "hardware": entry.hardware, "timed": entry.timed}
        for name, entry in entries.items()
    }
    document = {"schema": SCHEMA, "verdict": verdict, "exit_code": exit_code, "devices": devices, "tests": list(rows)}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "hil.json", json.dumps(document, indent=1).encode())
    write_atomically(folder / "hil.html", _page(verdict, devices, rows).encode())


def _page(verdict: str, devices: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    style = (resources.files("compressor.report") / "page.css").read_text()
    counts = {word: sum(row["outcome"] == word for row in rows) for word in ("passed", "failed", "skipped")}
    said = ", ".join(f"{count} {word}" for word, count in counts.items())
    body = card("Devices", _figures(devices, rows)) + card("Tests", _tests(rows))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Devices: {verdict}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{style}</style></head>'
        f'<body><main class="v-{verdict}"><header><h1>Devices: <span class="badge">{verdict}</span></h1>'
        f"<p>{said}</p></header>{body}</main></body></html>"
    )


def _figures(devices: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each device and bundle, with the figures measured."""
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["figures"]:
            last[row["device"], row["bundle"]] = {**last.get((row["device"], row["bundle"]), {}), **row["figures"]}
    heads = "".join(f'<th class="n">{escape(title)}</th>' for _, title, _, _ in _SHOWN)
    lines = []
    for (name, bundle), figures in last.items():
        about = devices.get(name, {})
        where = f"{about.get('kind', '')} {about.get('hardware', '')}".strip()
        facts = f"{figures.get('fact_machine', '')}, {figures.get('fact_runtime', '')}"
        cells = "".join(f'<td class="n">{_shown(figures, key, factor, form)}</td>' for key, _, factor, form in _SHOWN)
        first = f"<td><b>{escape(name)}</b> <small>{escape(where)}<br>{escape(facts)}</small></td>"
        lines.append(f"<tr>{first}<td>{escape(bundle)}</td>{cells}</tr>")
    none = "" if lines else '<p class="muted">Nothing was measured.</p>'
    return (
        f'<div class="scroll"><table><tr><th>Device</th><th>Bundle</th>{heads}</tr>{"".join(lines)}</table></div>{none}'
    )


def _shown(figures: Mapping[str, Any], key: str, factor: float, form: str) -> str:
    """Return a figure as text; a figure that the device does not have as a dash."""
    value = figures.get(key, -1)
    known = value > 0 if key in _ZERO_IS_UNKNOWN else value >= 0
    return form.format(value * factor) if known else "—"


def _tests(rows: Sequence[Mapping[str, Any]]) -> str:
    marks = {"passed": "pass", "failed": "fail", "skipped": "inconclusive"}
    lines = "".join(
        f'<tr><td class="mark {marks.get(row["outcome"], "")}">{escape(row["outcome"])}</td>'
        f"<td>{escape(row['device'] or 'none')}</td>"
        f"<td>{escape(row['test'].rpartition('::')[2].partition('[')[0])}</td>"
        f'<td>{escape(row["text"])}</td><td class="n">{row["seconds"]:.1f} s</td></tr>'
        for row in rows
    )
    heads = "<tr><th></th><th>Device</th><th>Test</th><th></th><th></th></tr>"
    return f'<div class="scroll"><table>{heads}{lines}</table></div>'
