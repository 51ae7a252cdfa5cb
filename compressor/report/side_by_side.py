"""Compares measurements of a device and of this host, as text for terminal and report. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compressor.gates.certificate import Certificate, DeviceRecord
from compressor.gates.evidence import AGREEMENT

NOTHING = "-"
_FIGURES = (
    ("accuracy", "accuracy", "{:.4f}", 1.0),
    ("mean error", "mae", "{:.4g}", 1.0),
    ("latency p50, ms", "latency_p50_ms", "{:.3f}", 1.0),
    ("latency p95, ms", "latency_p95_ms", "{:.3f}", 1.0),
    ("peak memory, MB", "peak_memory_bytes", "{:.1f}", 1e-6),
)
_FACTS = (("cpu", "{}"), ("runtime", "{}"), ("agent", "agent {}"), ("priority", "at {}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One device: ``rows`` of (what, on the device, on this host), ``said``: agreement and facts, or the problem."""

    device: str
    target: str
    rows: Sequence[tuple[str, str, str]]
    said: str


def beside(certificate: Certificate) -> list[Beside]:
    """Return every device of ``certificate`` and of its targets, beside this host's figures."""
    several = certificate.targets or (certificate,)
    return [
        Beside(device=record.device, target=item.target, rows=_rows(record, item.figures), said=_said(record))
        for item in several
        for record in item.devices
    ]


def _rows(record: DeviceRecord, here: Mapping[str, float]) -> list[tuple[str, str, str]]:
    known = [row for row in _FIGURES if row[1] in record.figures]
    return [
        (title, _number(record.figures, name, form, unit), _number(here, name, form, unit))
        for title, name, form, unit in known
    ]


def _number(figures: Mapping[str, float], name: str, form: str, unit: float) -> str:
    return form.format(figures[name] * unit) if name in figures else NOTHING


def _said(record: DeviceRecord) -> str:
    if record.problem:
        return record.problem
    figures = record.figures
    others = f"{figures.get('device_flips', 0):.0f} of {figures.get('device_rows', 0):.0f} rows answer otherwise there"
    golden = f"golden vectors differ by at most {figures.get('golden_max_abs', 0):.3g}"
    told = [f"{others}; {golden}"] if AGREEMENT in figures else [golden]
    facts = [text for name, form in _FACTS if (text := record.facts.get(name, "")) and (text := form.format(text))]
    return ", ".join([*told, *facts])
