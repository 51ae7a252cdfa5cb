"""Measurement orders and reports: golden bytes, limits, and reports that don't answer an order."""

from __future__ import annotations

import base64
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from wire.codec import decode, encode, to_document
from wire.errors import MessageError
from wire.measurement import (
    MAX_ORDER_MS,
    MAX_REPORT_HEADER_BYTES,
    MAX_ROWS_BYTES,
    ORDER_TYPE,
    MeasureOrder,
    MeasureReport,
    answers,
    blank_report,
    decode_report,
    encode_report,
    read_order,
    unverified_order,
)
from wire.messages import MAX_ENVELOPE_BYTES

GOLDEN = Path(__file__).parent / "golden"
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
T_MS = 1_795_000_000_000
ORDER = MeasureOrder(
    order="0123456789abcdef" * 2, device="cam-1", artifact_sha256=SHA, bundle_sha256=SHA, bundle_length_bytes=4096,
    rows_sha256=SHA, rows_length_bytes=512, rows=2, issued_ms=T_MS, expires_ms=T_MS + 300_000,
)  # fmt: skip
REPORT = replace(
    blank_report(ORDER), classes=3, latency_p50_ms=1.5, latency_p95_ms=2.25,
    peak_memory_bytes=69_206_016, golden_max_abs=0.001, golden_rows=16,
    facts={"cpu": "Cortex-A53", "runtime": "onnxruntime 1.32.0"},
)  # fmt: skip
LOGITS = struct.pack("<6f", 0.5, -1.0, 2.0, 0.0, 1.0, -2.0)


def test_the_golden_order_is_the_same_both_ways() -> None:
    """Orders of an older build host keep their meaning."""
    data = (GOLDEN / "measure_order.v1.json").read_bytes()
    assert read_order(data) == ORDER
    assert encode(ORDER) == data


def test_the_golden_report_is_the_same_both_ways() -> None:
    """Reports of an older device keep their meaning; unknown fields are kept."""
    data = (GOLDEN / "measure_report.v1.bin").read_bytes()
    older = replace(REPORT, extra={"latency_runs": 420, "measured_ms": T_MS + 9_000})
    assert decode_report(data) == (older, LOGITS)
    assert encode_report(older, LOGITS) == data


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"order": "0" * 31}, {"order": "../" * 11}, {"device": "cam 1"}, {"artifact_sha256": "x" * 64},
        {"bundle_length_bytes": 0}, {"bundle_length_bytes": 1 << 40}, {"rows": -1}, {"rows": 1 << 40},
        {"rows_length_bytes": MAX_ROWS_BYTES + 1}, {"rows_length_bytes": 0}, {"rows_sha256": ""},
        {"expires_ms": T_MS}, {"expires_ms": T_MS + MAX_ORDER_MS + 1},
    ],
    ids=str,
)  # fmt: skip
def test_an_order_beyond_its_limits_is_none(change: dict[str, object]) -> None:
    """Even a signed order can't exceed the limits of a device."""
    with pytest.raises(MessageError, match="Expected"):
        read_order(encode(replace(ORDER, **change)))  # type: ignore[arg-type]


def test_an_order_without_rows_needs_none() -> None:
    """Golden vectors alone can be measured."""
    assert read_order(encode(replace(ORDER, rows=0, rows_sha256="", rows_length_bytes=0))).rows == 0


def test_an_order_keeps_what_a_newer_build_host_says() -> None:
    """Fields of a later version are kept and written back."""
    newer = encode(replace(ORDER, extra={"repeats": 3}))
    assert read_order(newer).extra == {"repeats": 3}
    assert encode(read_order(newer)) == newer


@pytest.mark.parametrize(
    "envelope",
    [
        {}, {"payloadType": "application/json", "payload": ""}, {"payloadType": ORDER_TYPE, "payload": "%%"},
        {"payloadType": ORDER_TYPE, "payload": 7},
        {"payloadType": ORDER_TYPE, "payload": "A" * (MAX_ENVELOPE_BYTES + 1)},
        {"payloadType": ORDER_TYPE, "payload": base64.b64encode(b'{"_type": "targets"}').decode()},
    ],
    ids=range(6),
)  # fmt: skip
def test_an_envelope_of_something_else_holds_no_order(envelope: dict[str, object]) -> None:
    """Signed TUF metadata, other types and broken payloads are refused."""
    with pytest.raises(MessageError):
        unverified_order(envelope)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"TFM1", b"TFM2" + encode_report(REPORT, LOGITS)[4:], encode_report(REPORT, LOGITS)[:-1],
        encode_report(REPORT, LOGITS) + b"\0\0\0\0", b"TFM1" + struct.pack(">I", 1 << 30) + b"{}",
        b"TFM1" + struct.pack(">I", MAX_REPORT_HEADER_BYTES + 1) + b"x" * (MAX_REPORT_HEADER_BYTES + 9),
        b"TFM1" + struct.pack(">I", 2) + b"[]",
    ],
    ids=range(8),
)  # fmt: skip
def test_a_damaged_report_is_refused(data: bytes) -> None:
    """Lengths are checked before the content is read."""
    with pytest.raises(MessageError):
        decode_report(data)


@pytest.mark.parametrize(
    "change", [{"rows": 1}, {"classes": 4}, {"classes": -3, "rows": -2}, {"schema": 2}], ids=str
)  # fmt: skip
def test_a_report_whose_logits_are_not_what_it_says_is_refused(change: dict[str, int]) -> None:
    """The number of logits must be rows times classes."""
    with pytest.raises(MessageError):
        encode_report(replace(REPORT, **change), LOGITS)


@pytest.mark.parametrize("name", ["order", "device", "artifact_sha256", "bundle_sha256", "rows_sha256", "rows"])
def test_a_report_of_something_else_is_no_answer(name: str) -> None:
    """Device, order, artifact, bundle and rows must be those of the order."""
    assert answers(ORDER, REPORT) == ""
    other = 3 if name == "rows" else "f" * 64
    assert name in answers(ORDER, replace(REPORT, **{name: other}))  # type: ignore[arg-type]


def test_a_report_survives_unknown_fields() -> None:
    """A report may have fields that this version does not know."""
    document = {**to_document(REPORT), "voltage": 1.2}
    read = decode(MeasureReport, encode(replace(REPORT, extra={"voltage": 1.2})))
    assert to_document(read) == document
