"""Translators of operators: one small function each, in the table of the file that it belongs to.

``TRANSLATORS`` holds all of them by ONNX's name. A new operator is a function in one of the files and a line in its
``TABLE``.
"""

from __future__ import annotations

from types import MappingProxyType

from compressor.importing.operation import Table
from compressor.importing.operators import (
    activation,
    convolution,
    elementwise,
    linear,
    normalization,
    pooling,
    recurrent,
    resize,
    shape,
)

__all__ = ["TRANSLATORS"]

TRANSLATORS: Table = MappingProxyType(
    {
        **activation.TABLE,
        **convolution.TABLE,
        **elementwise.TABLE,
        **linear.TABLE,
        **normalization.TABLE,
        **pooling.TABLE,
        **recurrent.TABLE,
        **resize.TABLE,
        **shape.TABLE,
    }
)
