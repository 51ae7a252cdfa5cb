"""How large a number may be that becomes an 8-bit or 16-bit integer.

A mask of -3.4e38, the least float32, gives scales whose products leave float32: onnxruntime then computes another
network, and LiteRT ends the process. Such a number stands for minus infinity, and -1e4 says the same to a softmax.
"""

from __future__ import annotations

from compressor.errors import QuantizeError

LARGEST = 1e30
"""Products of two scales of such a range are still far inside float32 (3.4e38) once divided by 255 each."""


def within_reach(name: str, low: float, high: float) -> None:
    """Check that the range (low, high) of the tensor ``name`` can be given a scale.

    Raises:
        QuantizeError: If it reaches beyond 1e30.
    """
    if max(-low, high) > LARGEST:
        message = f"Expected values of at most {LARGEST:g} to quantize, got {low:.3g} to {high:.3g} of {name!r}"
        raise QuantizeError(f"{message}: in a mask write -1e4 in place of minus infinity, or take weight_int8")
