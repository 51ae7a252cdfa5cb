"""A measurement on a device: the build host's signed order, and the device's report.

An order is sent in a DSSE envelope, whose signed bytes begin with ``DSSEv1`` and the payload's type: no TUF metadata
does, so an order is never an install and signed metadata is never an order. A report is binary: magic ``TFM1``, the
length of the header (4 bytes, big-endian), the header as canonical JSON, then the logits, float32 little-endian
(rows, classes). A device with a certificate signs a statement with the report's digest, in an envelope of another type
that also has its certificate; it travels in an HTTP header beside the report. Decides the format and the limits.
Verifies no signature and runs nothing.
Source: DSSE protocol 1.0.2, https://github.com/secure-systems-lab/dsse.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from wire.canonical import canonical_bytes
from wire.codec import OMIT_DEFAULT, Json, encode, from_document, parse_json
from wire.errors import MessageError, NameRefusedError
from wire.messages import MAX_ENVELOPE_BYTES
from wire.topics import check_name
from wire.tuf_target import MAX_TARGET_BYTES

SCHEMA = 1
ORDER_TYPE = "application/vnd.tinyfleet.measurement-order+json"
STATEMENT_TYPE = "application/vnd.tinyfleet.measurement-report+json"
SIGNATURE_HEADER = "Tinyfleet-Report-Signature"
"""Its value is the envelope of the statement in base64; servers before 0.3 ignore it."""
MAX_SIGNATURE_BYTES = 16 * 1024
MAX_ROWS_BYTES = 256 * 1024 * 1024
MAX_ROWS = 1_000_000
MAX_REPORT_BYTES = 64 * 1024 * 1024
MAX_REPORT_HEADER_BYTES = 64 * 1024
MAX_ORDER_MS = 6 * 3_600_000
"""Longest validity of an order: a stolen one must expire."""
_MAGIC = b"TFM1"
_LENGTH = struct.Struct(">I")
MAX_REPORT_HEAD_BYTES = len(_MAGIC) + _LENGTH.size + MAX_REPORT_HEADER_BYTES
_FLOAT_BYTES = 4
_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOrder:
    """One measurement for one device, once: ``order`` is 32 hex digits that no other order has.

    ``bundle_*``: a bundle with artifact, manifest and golden vectors. ``rows_*``: pixels before scaling, npy of uint8
    (rows, H, W, 1 or 3); with ``rows`` 0 only the golden vectors are run.
    """

    schema: int = SCHEMA
    order: str = ""
    device: str = ""
    artifact_sha256: str = ""
    bundle_sha256: str = ""
    bundle_length_bytes: int = 0
    rows_sha256: str = ""
    rows_length_bytes: int = 0
    rows: int = 0
    issued_ms: int = 0
    expires_ms: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureReport:
    """The device's figures. ``rows`` x ``classes`` logits follow the header; ``facts``: runtime, CPU, agent as text.

    Latencies are of one inference, each percentile the median over repeated runs; ``peak_memory_bytes`` is that of a
    fresh process that opened the bundle and ran a few inputs; ``golden_max_abs`` the largest difference from the golden
    logits, ``golden_flips`` how many of ``golden_rows`` have another class. ``temperature_celsius``: of the hottest
    zone, 0 without a sensor; ``throttle_events``: how often the processor was slowed down meanwhile, -1 if that is
    unknown; ``energy_mj``: of one inference, all that the meter counts in its time, 0 without a meter;
    ``latency_p50_repeats_ms``, ``latency_p95_repeats_ms``: the percentiles of each repeat, in their order, empty from
    an older agent.
    """

    schema: int = SCHEMA
    order: str = ""
    device: str = ""
    artifact_sha256: str = ""
    bundle_sha256: str = ""
    rows_sha256: str = ""
    rows: int = 0
    classes: int = 0
    latency_p50_ms: float = 0.0
    latency_p95_ms: float = 0.0
    peak_memory_bytes: int = 0
    golden_max_abs: float = 0.0
    golden_flips: int = 0
    golden_rows: int = 0
    temperature_celsius: float = field(default=0.0, metadata=OMIT_DEFAULT)
    throttle_events: int = field(default=-1, metadata=OMIT_DEFAULT)
    energy_mj: float = field(default=0.0, metadata=OMIT_DEFAULT)
    latency_p50_repeats_ms: tuple[float, ...] = field(default=(), metadata=OMIT_DEFAULT)
    latency_p95_repeats_ms: tuple[float, ...] = field(default=(), metadata=OMIT_DEFAULT)
    facts: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportStatement:
    """What a device signs: that the report with this SHA-256 is its answer to the order."""

    schema: int = SCHEMA
    order: str = ""
    device: str = ""
    report_sha256: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement, the bytes that its signature is over (``signed_bytes``), and the certificate (PEM) to verify it."""

    statement: ReportStatement
    signature: bytes
    certificate: str


def signed_bytes(statement: ReportStatement) -> bytes:
    """Return the bytes that a device signs. Source: DSSE protocol 1.0.2, pre-authentication encoding."""
    payload = encode(statement)
    return b"DSSEv1 %d %s %d %s" % (len(STATEMENT_TYPE), STATEMENT_TYPE.encode(), len(payload), payload)


def encode_statement(signed: SignedStatement) -> bytes:
    """Return the envelope of a signed statement as JSON."""
    sig = base64.b64encode(signed.signature).decode()
    document: dict[str, Json] = {
        "payload": base64.b64encode(encode(signed.statement)).decode(), "payloadType": STATEMENT_TYPE,
        "signatures": [{"keyid": "", "sig": sig}], "certificate": signed.certificate,
    }  # fmt: skip
    return canonical_bytes(document)


def decode_statement(data: bytes) -> SignedStatement:
    """Return the signed statement in an envelope; verifies nothing.

    Raises:
        MessageError: If it can't be decoded, or is of another type.
    """
    envelope = parse_json(data, limit_bytes=MAX_SIGNATURE_BYTES)
    payload, kind, signatures = envelope.get("payload"), envelope.get("payloadType"), envelope.get("signatures")
    first = signatures[0] if isinstance(signatures, list) and len(signatures) == 1 else None
    sig, certificate = first.get("sig") if isinstance(first, Mapping) else None, envelope.get("certificate")
    if kind != STATEMENT_TYPE or not all(isinstance(one, str) for one in (payload, sig, certificate)):
        message = (
            f"Expected a statement of {STATEMENT_TYPE} with one signature and a certificate, got {str(kind)[:80]!r}"
        )
        raise MessageError(message)
    try:
        decoded, signature = (base64.b64decode(str(text), validate=True) for text in (payload, sig))
    except (binascii.Error, ValueError) as error:
        message = f"Expected a statement in base64, got: {error}"
        raise MessageError(message) from error
    statement = from_document(ReportStatement, parse_json(decoded))
    if encode(statement) != decoded:
        raise MessageError("Expected a statement in canonical JSON, got another form")
    return SignedStatement(statement, signature, str(certificate))


def read_order(payload: bytes) -> MeasureOrder:
    """Return the order in ``payload``, complete and within its limits; does not verify its signature.

    Raises:
        MessageError: If it can't be decoded, lacks something or exceeds a limit.
    """
    order = from_document(MeasureOrder, parse_json(payload, limit_bytes=MAX_ENVELOPE_BYTES))
    try:
        check_name(order.device, "a device")
    except NameRefusedError as error:
        raise MessageError(str(error)) from error
    problem = _problem(order)
    if problem:
        raise MessageError(problem)
    return order


def _problem(order: MeasureOrder) -> str:
    digests = [order.artifact_sha256, order.bundle_sha256, *([order.rows_sha256] if order.rows else [])]
    if order.schema != SCHEMA:
        return f"Expected a measurement order of schema {SCHEMA}, got {order.schema}: update the agent"
    if not _ID.fullmatch(order.order) or not all(map(_DIGEST.fullmatch, digests)):
        return "Expected an order id of 32 and digests of 64 lower-case hex digits, got others"
    if not 0 < order.expires_ms - order.issued_ms <= MAX_ORDER_MS:
        return f"Expected an order that holds for at most {MAX_ORDER_MS} ms, got {order.expires_ms - order.issued_ms}"
    rows, rows_bytes = order.rows, order.rows_length_bytes
    if not 0 < order.bundle_length_bytes <= MAX_TARGET_BYTES:
        return f"Expected a bundle of 1 to {MAX_TARGET_BYTES} bytes, got {order.bundle_length_bytes}"
    if not (0 <= rows <= MAX_ROWS and bool(rows) <= rows_bytes <= MAX_ROWS_BYTES):
        return f"Expected at most {MAX_ROWS} rows and {MAX_ROWS_BYTES} bytes, got {rows} and {rows_bytes}"
    return ""


def unverified_order(envelope: Mapping[str, Json]) -> MeasureOrder:
    """Return the order in a DSSE envelope without verifying its signatures: to find its device, never to obey it.

    Raises:
        MessageError: If the envelope or its order can't be decoded, or the payload is of another type.
    """
    payload, kind = envelope.get("payload"), envelope.get("payloadType")
    if kind != ORDER_TYPE or not isinstance(payload, str) or len(payload) > MAX_ENVELOPE_BYTES:
        message = f"Expected an envelope with a payload of {ORDER_TYPE}, got {str(kind)[:80]!r}"
        raise MessageError(message)
    try:
        return read_order(base64.b64decode(payload, validate=True))
    except (binascii.Error, ValueError) as error:
        message = f"Expected a payload in base64, got: {error}"
        raise MessageError(message) from error


def encode_report(report: MeasureReport, logits: bytes) -> bytes:
    """Return the bytes of a report; ``logits``: float32 little-endian, (rows, classes) in C order.

    Raises:
        MessageError: If the number of logits differs from the header, or the report is too long.
    """
    header = encode(report)
    data = _MAGIC + _LENGTH.pack(len(header)) + header + logits
    decode_report(data)
    return data


def decode_report(data: bytes) -> tuple[MeasureReport, bytes]:
    """Return the report in ``data`` and its logits, float32 little-endian, (rows, classes) in C order.

    Raises:
        MessageError: If it is too long, can't be decoded, or the number of logits differs from its header.
    """
    report, start = report_head(data[:MAX_REPORT_HEAD_BYTES], len(data))
    return report, data[start:]


def report_head(head: bytes, length_bytes: int) -> tuple[MeasureReport, int]:
    """Return the report whose first bytes are ``head``, and the offset of its logits; ``length_bytes``: of the whole.

    For programs that forward a report without holding it in memory.

    Raises:
        MessageError: If it is too long, can't be decoded, or the number of logits differs from its header.
    """
    start = len(_MAGIC) + _LENGTH.size
    if length_bytes > MAX_REPORT_BYTES or len(head) < start or not head.startswith(_MAGIC):
        message = f"Expected a measurement report of at most {MAX_REPORT_BYTES} bytes, got {length_bytes} bytes"
        raise MessageError(message)
    (length,) = _LENGTH.unpack_from(head, len(_MAGIC))
    if length > min(MAX_REPORT_HEADER_BYTES, len(head) - start):
        message = f"Expected a report's header of at most {MAX_REPORT_HEADER_BYTES} bytes, got {length}"
        raise MessageError(message)
    report = from_document(MeasureReport, parse_json(head[start : start + length]))
    logits_bytes = length_bytes - start - length
    if report.schema != SCHEMA:
        message = f"Expected a report of schema {SCHEMA}, got {report.schema}: update this program"
        raise MessageError(message)
    if min(report.rows, report.classes) < 0 or logits_bytes != report.rows * report.classes * _FLOAT_BYTES:
        message = f"Expected {report.rows} x {report.classes} logits of {_FLOAT_BYTES} bytes, got {logits_bytes} bytes"
        raise MessageError(message)
    return report, start + length


def answers(order: MeasureOrder, report: MeasureReport) -> str:
    """Return why ``report`` does not answer ``order``, or "": same order, device, artifact, bundle and rows."""
    for name in ("order", "device", "artifact_sha256", "bundle_sha256", "rows_sha256", "rows"):
        asked, got = getattr(order, name), getattr(report, name)
        if asked != got:
            return f"Expected a report with {name} {str(asked)[:32]!r}, got {str(got)[:32]!r}"
    return ""


def blank_report(order: MeasureOrder) -> MeasureReport:
    """Return a report with the identities of ``order`` and no figures."""
    return replace(
        MeasureReport(), order=order.order, device=order.device, artifact_sha256=order.artifact_sha256,
        bundle_sha256=order.bundle_sha256, rows_sha256=order.rows_sha256, rows=order.rows,
    )  # fmt: skip
