"""The largest magnitude of a number that becomes an 8-bit or 16-bit integer.

A mask of -3.4e38, the lowest float32, gives scales whose products overflow float32: onnxruntime then computes wrong
results, and LiteRT aborts the process. Such a number stands for minus infinity; -1e4 has the same effect in a softmax.
"""

from __future__ import annotations

from compressor.errors import QuantizeError

LARGEST = 1e30
"""The product of two scales of such ranges, each divided by 255, is still well within float32 (3.4e38)."""


def within_reach(name: str, low: float, high: float) -> None:
    """Check that a scale exists for the range (low, high) of the tensor ``name``.

    Raises:
        QuantizeError: If it exceeds 1e30.
    """
    if max(-low, high) > LARGEST:
        message = f"Expected values of at most {LARGEST:g} to quantize, got {low:.3g} to {high:.3g} of {name!r}"
        raise QuantizeError(f"{message}: in a mask write -1e4 in place of minus infinity, or take weight_int8")
