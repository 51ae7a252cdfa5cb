"""Verification and probe as short-lived children: their memory is given back, their crash is a result."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_agent.updater.seams import ProbeResult, Refusal, TargetInfo
from wire.codec import Json, from_document, parse_json
from wire.errors import MessageError
from wire.target import TargetCustom

_PASSING = frozenset({"metadata_unreachable"})
_TAIL = 300


@dataclass(frozen=True, slots=True)
class ChildVerifier:
    """``python -m edge_agent.updater.verification``."""

    state: Path
    limit_s: float = 300.0

    def check(self, target: str) -> TargetInfo | Refusal:
        """Return what the child says of ``target``."""
        module = "edge_agent.updater.verification"
        answer = ask([module, "--state", str(self.state), "--target", target], self.limit_s)
        if isinstance(answer, str):
            return Refusal(
                "metadata_unreachable", f"Expected a verdict of the verification, got: {answer}", passing=True
            )
        if answer.get("ok") is not True:
            code = str(answer.get("code") or "signature_invalid")
            return Refusal(code, str(answer.get("text", "")), passing=code in _PASSING)
        custom, length = answer.get("custom"), answer.get("length_bytes")
        if not isinstance(custom, dict) or not isinstance(length, int):
            return Refusal("signature_invalid", "Expected custom data and a length in signed metadata, got none")
        return TargetInfo(str(answer.get("sha256", "")), length, from_document(TargetCustom, custom))


@dataclass(frozen=True, slots=True)
class ChildProber:
    """``python -m edge_agent.probe``."""

    limit_s: float = 300.0

    def probe(self, bundle: Path) -> ProbeResult:
        """Return what the child made of ``bundle``."""
        answer = ask(["edge_agent.probe", str(bundle)], self.limit_s)
        if isinstance(answer, str):
            return ProbeResult(code="child_crashed", text=f"Expected a verdict of the probe, got: {answer}")
        p95_ms, peak = answer.get("latency_p95_ms"), answer.get("peak_memory_bytes")
        return ProbeResult(
            ok=answer.get("ok") is True,
            code=str(answer.get("code", "")),
            text=str(answer.get("text", "")),
            latency_p95_ms=float(p95_ms) if isinstance(p95_ms, int | float) else 0.0,
            peak_memory_bytes=peak if isinstance(peak, int) else 0,
        )


def ask(module_and_arguments: list[str], limit_s: float) -> dict[str, Json] | str:
    """Return the JSON object in the last line the child prints, or what went wrong."""
    command = [sys.executable, "-m", *module_and_arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False)
        lines = done.stdout.splitlines()
        return parse_json(lines[-1]) if lines else f"exit {done.returncode}: {_tail(done.stderr)}"
    except subprocess.TimeoutExpired:
        return f"no answer in {limit_s:.0f} s"
    except (OSError, MessageError) as error:
        return str(error)


def _tail(text: bytes) -> str:
    return text.decode(errors="replace").strip()[-_TAIL:]
