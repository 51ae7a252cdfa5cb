"""Step ``quantize``: makes the exported file smaller with one of the schemes in ``compressor.quantize``.

Decides the keys and their ranges. Does not decide what a scheme does with them, nor whether the scheme exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from compressor.steps._base import ARTIFACT
from wire.settings import Bound, OneOf

LEVEL = ARTIFACT
CALIBRATIONS = ("min_max", "percentile", "mse")
_MAX_FLOAT_LAYERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[[compress]] step = "quantize"``.

    ``calibration``: ``min_max``, ``percentile`` (then ``percentile`` of each tensor's values is inside the range) or
    ``mse`` (the range with the least squared error). ``reduce_range``: 7-bit weights. On by default, because u8 x s8
    sums saturate on x86 without VNNI: measured on meter digits, 1.1 points and 2.5 % flips with 8 bits, 0.04 points and
    0.2 % with 7. Turn it off for ARM and for x86 with VNNI. ``per_channel``: one weight scale per output channel; one
    per tensor ruins depthwise networks. ``bias_correction``: subtract the mean rounding error of each output channel
    from its bias. ``float_layers``: nodes that stay float, by name or unique prefix; ``float_layers_auto``: how many of
    the most sensitive layers also stay float. ``integer_io``: int8 input and output of a TFLite file. ``rescue``:
    accuracy loss on search rows (0..1) above which remedies are tried, cheapest first, on an ONNX target; 0 disables
    them. ``on``: the target that this step is for (empty: all). ``allow_unquantized``: more than half of the weights
    may stay float32; otherwise that is an error. ``own``: the ``Settings`` of the scheme's file, if it declares keys
    of its own and the recipe sets one.
    """

    step: str = "quantize"
    scheme: str = "static_int8"
    calibration: Annotated[str, OneOf(CALIBRATIONS)] = "min_max"
    percentile: Annotated[float, Bound(90, 100)] = 99.99
    reduce_range: bool = True
    per_channel: bool = True
    bias_correction: bool = False
    float_layers: tuple[str, ...] = ()
    float_layers_auto: Annotated[int, Bound(0, _MAX_FLOAT_LAYERS)] = 0
    integer_io: bool = False
    rescue: Annotated[float, Bound(0, 1)] = 0.0
    allow_unquantized: bool = False
    on: str = ""
    own: Any = None

    def __repr__(self) -> str:
        """Return the text for cache keys; without ``own`` it is the same as before that field existed."""
        names = [one.name for one in fields(self) if one.name != "own" or self.own is not None]
        return f"Settings({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


def unread(settings: Settings) -> Mapping[str, str]:
    """Return the keys that other settings make unused, with the reason."""
    if settings.rescue or settings.calibration == "percentile":  # a rung of the rescue uses it
        return {}
    return {"percentile": f"with calibration = {settings.calibration!r}"}
