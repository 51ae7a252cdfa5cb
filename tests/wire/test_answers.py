"""The answer record's bytes: the quick way of the usual answer equals the general one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wire.answers import AnswerRecord, encode_answer
from wire.codec import encode
from wire.errors import MessageError

USUAL = AnswerRecord(
    id='é"\\@1', at_ms=1_790_000_000_000, device="door", release="m 1", task="classification", label="a\n",
    confidence=1 / 3, supported=True, support_rate=0.01, latency_ms=4.125, run_ms=3.0,
)  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"label": ""}, {"device": ""}, {"supported": None}, {"supported": False}, {"support_rate": None},
        {"confidence": None}, {"confidence": 1}, {"confidence": 1e-300}, {"inputs": 3}, {"values": {"t": 2.5}},
        {"scores": {"a": 0.5}}, {"boxes": ({"x": 1},)}, {"events": ({"at": 2},)}, {"extra": {"later": [1]}},
        {"error": "runtime", "text": "no"}, {"drift": "ok"}, {"stream": "kitchen"}, {"version": 2},
        {"latency_ms": 0, "support_rate": 0},
    ],
)  # fmt: skip
def test_the_quick_way_gives_the_same_bytes(changed: dict[str, object]) -> None:
    """Each field once at another value, also such as the quick way does not write."""
    record = replace(USUAL, **changed)  # type: ignore[arg-type]
    assert encode_answer(record) == encode(record)


@pytest.mark.parametrize("changed", [{"confidence": float("nan")}, {"run_ms": float("inf")}, {"id": "\ud800"}])
def test_what_json_cant_carry_is_refused(changed: dict[str, object]) -> None:
    """NaN, infinity and a lone surrogate are the same error as in any message."""
    with pytest.raises(MessageError):
        encode_answer(replace(USUAL, **changed))  # type: ignore[arg-type]
