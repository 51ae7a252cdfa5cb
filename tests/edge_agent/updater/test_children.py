"""Verification and probe as children: their output is read, and every kind of end has a result."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.updater.children import ChildProber, ChildVerifier, NoAnswer, run_child
from edge_agent.updater.ports import ProbeResult, Refusal, TargetInfo
from wire.tuf_target import TargetCustom

SHA256 = "a" * 64
VERIFICATION, PROBE = "edge_agent/updater/verification.py", "edge_agent/inference/probe.py"
NO_CUSTOM = Refusal("signature_invalid", "Expected custom data and a length in signed metadata, got none")
Child = Callable[[str, str], None]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """Put another program in the place of a child: ``python -m`` looks in the current folder first."""

    def write(name: str, code: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder / "__init__.py").touch()
        path.write_text(code)

    monkeypatch.chdir(tmp_path)
    return write


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (
            {"ok": True, "sha256": SHA256, "length_bytes": 9, "custom": {"model": "m"}},
            TargetInfo(SHA256, 9, TargetCustom(model="m")),
        ),
        ({"ok": False, "code": "too_large", "text": "so", "server_ms": 5}, Refusal("too_large", "so", 5)),
        ({"ok": 1, "length_bytes": 9, "custom": {}}, Refusal("signature_invalid", "", 0)),
        ({"server_ms": "now", "code": ""}, Refusal("signature_invalid", "", 0)),
        ({"ok": True, "length_bytes": 9}, NO_CUSTOM),
        ({"ok": True, "length_bytes": "9", "custom": {}}, NO_CUSTOM),
    ],
)
def test_only_ok_with_custom_data_and_a_length_is_a_target(
    child: Child, answer: dict[str, object], result: TargetInfo | Refusal
) -> None:
    """Any other output of a child is a refusal, with at most its own text."""
    child(VERIFICATION, f"print({json.dumps(answer)!r})")
    assert ChildVerifier(Path("state")).check("m-1/t.tfb") == result


def test_the_verification_is_told_the_state_and_the_target(child: Child) -> None:
    """By the names of its options."""
    child(VERIFICATION, "import json, sys; print(json.dumps({'code': 'c', 'text': ' '.join(sys.argv[1:])}))")
    assert ChildVerifier(Path("there")).check("m-1/t.tfb").text == "--state there --target m-1/t.tfb"


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (
            {"ok": True, "latency_p95_ms": 3, "peak_memory_bytes": 7},
            ProbeResult(ok=True, latency_p95_ms=3.0, peak_memory_bytes=7),
        ),
        ({"ok": False, "code": "golden", "text": "differs"}, ProbeResult(code="golden", text="differs")),
        ({"ok": 1, "latency_p95_ms": "3", "peak_memory_bytes": 1.5}, ProbeResult()),
    ],
)
def test_a_probe_is_read_field_by_field(child: Child, answer: dict[str, object], result: ProbeResult) -> None:
    """A value that is not a number is read as 0, and only true is ok."""
    child(PROBE, f"print({json.dumps(answer)!r})")
    assert ChildProber().probe(Path("bundle")) == result


def test_the_probe_is_told_the_bundle_and_its_memory(child: Child) -> None:
    """By the names of its options."""
    child(PROBE, "import json, sys; print(json.dumps({'text': ' '.join(sys.argv[1:])}))")
    assert ChildProber(max_memory_bytes=5).probe(Path("b")).text == "b --memory-bytes 5"


def test_the_last_line_counts(child: Child) -> None:
    """A library may print before it."""
    child("two.py", "print('hello'); print('{\"ok\": true}')")
    assert run_child(["two"], 60.0) == {"ok": True}


@pytest.mark.parametrize("code", ["print('no JSON')", "print('[1]')", "", "raise SystemExit(3)"])
def test_a_child_without_an_answer_has_crashed(child: Child, code: str) -> None:
    """Its exit and the end of its output are reported, for both."""
    for name in ("one.py", VERIFICATION, PROBE):
        child(name, f"import sys; sys.stderr.write('x' * 400 + 'the end\\n')\n{code}")
    found = run_child(["one"], 60.0)
    assert isinstance(found, NoAnswer)
    assert found.code == "child_crashed"
    assert "x" * 293 + "the end" in found.text
    assert "x" * 294 not in found.text
    refusal, result = ChildVerifier(Path("state")).check("t"), ChildProber().probe(Path("b"))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, result.code, result.ok) == ("child_crashed", "child_crashed", False)
    assert refusal.text.startswith("Expected a verdict of the verification, got: ")
    assert result.text.startswith("Expected a verdict of the probe, got: ")


def test_a_child_that_does_not_end_is_stuck(child: Child) -> None:
    """At its limit."""
    child("stays.py", "import threading; threading.Event().wait()")
    assert run_child(["stays"], 0.1) == NoAnswer("stuck", "no answer in 0 s")


def test_a_child_that_can_not_be_started_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again: the release is not at fault."""
    monkeypatch.setattr(sys, "executable", "/not/there/python")
    found = run_child(["one"], 60.0)
    assert isinstance(found, NoAnswer)
    assert (found.code, "/not/there/python" in found.text) == ("launch_failed", True)
