"""Runs verification and probe as short-lived children: their memory is released, and a crash is a result."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from edge_agent.device.memory_limit import end_text, oom_kills
from edge_agent.telemetry.byte_meter import AirBytes, ByteMeter
from edge_agent.updater.ports import ProbeResult, Refusal, TargetInfo
from wire.codec import Json, from_document, parse_json
from wire.errors import MessageError
from wire.tuf_target import TargetCustom

_TAIL = 300


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A child without a verdict: ``launch_failed`` (none started), ``stuck``, ``out_of_memory``, ``child_crashed``."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class ChildVerifier:
    """``python -m edge_agent.updater.verification``; ``metadata``: a folder instead of the server's."""

    state: Path
    limit_s: float = 300.0
    meter: ByteMeter = field(default_factory=ByteMeter)
    _: KW_ONLY
    metadata: Path | None = None

    def check(self, target: str) -> TargetInfo | Refusal:
        """Return the child's verdict on ``target``."""
        module = "edge_agent.updater.verification"
        folder = [] if self.metadata is None else ["--metadata-dir", str(self.metadata)]
        answer = run_child([module, "--state", str(self.state), "--target", target, *folder], self.limit_s)
        if isinstance(answer, NoAnswer):
            return Refusal(answer.code, f"Expected a verdict of the verification, got: {answer.text}")
        sent, received = answer.get("sent_bytes"), answer.get("received_bytes")
        if isinstance(sent, int) and isinstance(received, int):
            self.meter.add(AirBytes(sent, received))
        if answer.get("ok") is not True:
            server_ms = answer.get("server_ms")
            return Refusal(
                str(answer.get("code") or "signature_invalid"),
                str(answer.get("text", "")),
                server_ms if isinstance(server_ms, int) else 0,
            )
        custom, length = answer.get("custom"), answer.get("length_bytes")
        if not isinstance(custom, dict) or not isinstance(length, int):
            return Refusal("signature_invalid", "Expected custom data and a length in signed metadata, got none")
        return TargetInfo(str(answer.get("sha256", "")), length, from_document(TargetCustom, custom))


@dataclass(frozen=True, slots=True)
class ChildProber:
    """``python -m edge_agent.inference.probe``.

    ``least_s``: for how many seconds it times inferences, 0 for its own default. ``gently``: at the lowest priority.
    """

    limit_s: float = 300.0
    max_memory_bytes: int = 0
    _: KW_ONLY
    least_s: float = 0.0
    gently: bool = False

    def probe(self, bundle: Path) -> ProbeResult:
        """Return the child's result for ``bundle``."""
        options = ["--memory-bytes", str(self.max_memory_bytes)]
        options += [*(["--least-s", str(self.least_s)] if self.least_s else []), *(["--gently"] if self.gently else [])]
        answer = run_child(["edge_agent.inference.probe", str(bundle), *options], self.limit_s)
        if isinstance(answer, NoAnswer):
            return ProbeResult(code=answer.code, text=f"Expected a verdict of the probe, got: {answer.text}")
        peak, runs = answer.get("peak_memory_bytes"), answer.get("runs")
        p50_ms, p95_ms, p99_ms = (_number(answer.get(f"latency_p{one}_ms")) for one in (50, 95, 99))
        return ProbeResult(
            ok=answer.get("ok") is True,
            code=str(answer.get("code", "")),
            text=str(answer.get("text", "")),
            latency_p95_ms=p95_ms,
            peak_memory_bytes=peak if isinstance(peak, int) else 0,
            latency_p50_ms=p50_ms,
            latency_p99_ms=p99_ms,
            runs=runs if isinstance(runs, int) else 0,
        )


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def run_child(module_and_arguments: list[str], limit_s: float) -> dict[str, Json] | NoAnswer:
    """Return the JSON object in the last line that the child prints, or why there is none."""
    command = [sys.executable, "-m", *module_and_arguments]
    killed = oom_kills()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return NoAnswer("stuck", f"no answer in {limit_s:.0f} s")
    except OSError as error:
        return NoAnswer("launch_failed", str(error))
    out_of_memory = done.returncode == -signal.SIGKILL and oom_kills() > killed
    tail = done.stderr.decode(errors="replace").strip()[-_TAIL:]
    ended = f"{end_text(done.returncode, out_of_memory=out_of_memory)}: {tail}"
    lines = done.stdout.splitlines()
    try:
        return (
            parse_json(lines[-1]) if lines else NoAnswer("out_of_memory" if out_of_memory else "child_crashed", ended)
        )
    except MessageError as error:
        return NoAnswer("child_crashed", f"{ended}: {error}")
