"""Share of the weights that a quantizer left in float32: a step that did nothing must not report success.

Counts the elements of constant tensors with at least two axes (biases and scales have one) and a weight's type: sizes
and paddings are integers of 32 or 64 bits. Does not decide what a scheme can quantize.
"""

from __future__ import annotations

from dataclasses import dataclass

from compressor import formats
from compressor.errors import QuantizeError
from compressor.steps.quantize import Settings

MOST_LEFT = 0.5
"""Share of the weights that may stay float32 without being requested; above it the file is mainly a float file."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Left:
    """``ratio`` (0..1): the share of the weights in float32; ``names``: the largest such tensors."""

    ratio: float
    names: tuple[str, ...]

    def __str__(self) -> str:
        """Describe it in a clause."""
        return f"{100 * self.ratio:.0f} % of its weights left float32 ({', '.join(self.names)})"


def left_float(model: bytes, runtime: str) -> Left:
    """Return the share of float32 weights in ``model``, a file of ``runtime``; 1.0 if there are no weights.

    Raises:
        QuantizeError: If the file can't be read.
    """
    weights = formats.named(runtime).weights(model)
    found = list(weights or ())
    total = sum(size for _, size, _ in found)
    plain = sorted(((size, name) for name, size, is_float in found if is_float), reverse=True)
    if not total:
        return Left(1.0, ("there are no weights",))
    return Left(sum(size for size, _ in plain) / total, tuple(name for _, name in plain[:_NAMED]))


def check(model: bytes, runtime: str, step: Settings) -> str:
    """Return a remark on the weights that ``step`` left float in ``model``; empty if there are none.

    Raises:
        QuantizeError: If more than half of the weights are float, and the recipe neither allows nor requests it.
    """
    if step.scheme == "none":
        return ""
    left = left_float(model, runtime)
    asked = step.allow_unquantized or step.float_layers or step.float_layers_auto
    if left.ratio > MOST_LEFT and not asked:
        message = f"Expected step 'quantize' ({step.scheme}) to quantize the weights, got {left}"
        advice = "choose another scheme or network, or set allow_unquantized = true"
        raise QuantizeError(f"{message}: no kernel or rule for them here; {advice}")
    return f"quantize ({step.scheme}): {left}" if left.ratio > 0 else ""
