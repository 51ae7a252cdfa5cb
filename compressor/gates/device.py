"""Gates on a device: the recipe's own gates on the device's measurements, and agreement with this host. Pure.

Decides how ``on`` is parsed, and what a disagreement is: more rows with another class than the allowed share, golden
vectors outside their tolerance, or a gate that passes on the device but not on this host. A disagreement fails: the two
do not run the same model. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from compressor.gates.evidence import AGREEMENT, DeviceEvidence, Evidence, Gate, GateResult, Verdict, missing, points
from compressor.gates.kinds import is_timed

PREFIX = "device:"


def device_in(on: str) -> tuple[str, str]:
    """Return (device, target) of ``on``: ``device:ID`` or ``TARGET@device:ID``; ("", "") if it names no device."""
    target, at, rest = on.rpartition("@")
    if not rest.startswith(PREFIX) or (at and not target):
        return "", ""
    return rest.removeprefix(PREFIX), target


def device_for(on: str, target: str) -> str:
    """Return the device that ``on`` names for ``target``, "" for none."""
    device, only = device_in(on)
    return device if only in {"", target} else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDevice:
    """A gate on the measurements of ``device``."""

    gate: Gate
    device: str
    name: str
    limit: float

    def judge(self, evidence: Evidence) -> GateResult:
        """Return the gate's verdict on the device's evidence; FAIL with the reason if there is none."""
        said = evidence.devices.get(self.device)
        if said is None or said.problem:
            return _unmeasured(self.name, self.limit, self.device, said)
        return replace(self.gate.judge(said.evidence), on=self.device)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Device and host give the same answers for the same rows. ``gates`` are those judged on both."""

    device: str
    limit: float
    gates: Sequence[Gate] = ()

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS, or FAIL with all disagreements; what was not compared also fails."""
        said = evidence.devices.get(self.device)
        if said is None or said.problem:
            return _unmeasured(AGREEMENT, self.limit, self.device, said)
        figures = said.evidence.figures
        share, rows, flips = figures.get(AGREEMENT), figures.get("device_rows", 0.0), figures.get("device_flips", 0.0)
        if share is None or not rows:
            return replace(missing(AGREEMENT, self.limit, said.evidence.unknown), on=self.device)
        compared = f"{flips:.0f} of {rows:.0f} rows answer otherwise than here: {points(share)}, at most "
        reasons = [] if share <= self.limit else [f"{compared}{points(self.limit)} allowed"]
        reasons += _golden(figures)
        reasons += [
            reason for gate in self.gates if (reason := _better_there(gate.judge(said.evidence), gate.judge(evidence)))
        ]
        text = f"{compared}{points(self.limit)}; golden vectors agree"
        if reasons:
            text = f"device and host disagree: {'; '.join(reasons)}: not to be trusted before it is known why"
        verdict = Verdict.FAIL if reasons else Verdict.PASS
        return GateResult(
            name=AGREEMENT,
            verdict=verdict,
            value=share,
            bound=share,
            limit=self.limit,
            n=int(rows),
            text=text,
            on=self.device,
        )


def _unmeasured(name: str, limit: float, device: str, said: DeviceEvidence | None) -> GateResult:
    text = said.problem if said is not None else f"Expected a measurement of {device}, got none: give --server"
    return GateResult(name=name, verdict=Verdict.FAIL, value=None, bound=None, limit=limit, n=0, text=text, on=device)


def _golden(figures: Mapping[str, float]) -> list[str]:
    names = ("max_abs", "allowed_abs", "flips", "allowed_flips")
    difference, allowed, flips, allowed_flips = (figures.get(f"golden_{name}") for name in names)
    if difference is None or allowed is None or flips is None or allowed_flips is None:
        return ["golden vectors were not run there"]
    if difference <= allowed and flips <= allowed_flips:
        return []
    return [f"golden vectors differ by {difference:.3g} (at most {allowed:.3g}) with {flips:.0f} flips"]


def _better_there(there: GateResult, here: GateResult) -> str:
    """Return the text for a gate that passes only on the device, "" if none; figures unmeasurable here don't count."""
    unmeasurable = here.value is None and is_timed(here.name)
    if there.verdict is not Verdict.PASS or here.verdict is Verdict.PASS or unmeasurable:
        return ""
    return f"{here.name} passes there and is {here.verdict.value} here"
