"""The preprocessing of a recipe's data, for the manifest.

Writes out every option of a front end, so that a later change of defaults does not affect old bundles.
"""

from __future__ import annotations

from typing import cast

from compressor import plugins
from compressor.data import _front_end, datasets
from compressor.errors import PluginError
from compressor.recipe.model import DataRecipe
from wire.manifest import DECODES, ORIENTATIONS, Preprocessing


def preprocessing_of(data: DataRecipe, layout: str = "NCHW") -> Preprocessing:
    """Return the manifest's preprocessing from an image of ``data`` to the input tensor in ``layout``.

    Raises:
        DataError: If the data set has no such front end, or an option is unknown or out of range.
    """
    channels = data.channels
    return Preprocessing(
        width=data.width,
        height=data.height,
        colour=data.colour,
        mean=(data.mean,) * channels,
        std=(data.std,) * channels,
        layout=layout,
        orientation=ORIENTATIONS[0] if data.front_end else data.orientation,
        decode=DECODES[0] if data.front_end else data.decode,
        front_end=data.front_end,
        front_end_options=_front_end_options(data) if data.front_end else {},
    )


def _front_end_options(data: DataRecipe) -> dict[str, float]:
    """Return every option of the front end, written out: a later change of defaults does not affect old bundles."""
    name = f"{data.dataset.partition(':')[0]}:front_end" if ":" in data.dataset else data.dataset
    try:
        asked = plugins.resolve("compressor.data", name, "front_end", known=datasets())
        options = cast("tuple[str, dict[str, float]]", asked(data))[1]
    except PluginError:  # the data set has no front_end: options unknown to the front end are the data set's
        known, given = _front_end.completed(data.front_end, {}), _front_end.options_of(data)
        own = {key: value for key, value in given.items() if key in known or key.rstrip("0123456789_") in known}
        options = _front_end.completed(data.front_end, own)
    return {key: float(options[key]) for key in sorted(options)}
