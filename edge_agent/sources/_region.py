"""The region of interest of pictures, and their size: the keys ``region`` and ``resize`` of a source of pictures.

The cropped picture is the input in every respect: the model, drift monitor, ``supported`` and samples for labelling see
nothing else. So a model for a region is trained on pictures cropped alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from wire.errors import SettingsError

MAX_SIDE = 8192
_SLACK = 1e-9  # 0.7 + 0.3 may be above 1


def check_region(region: Sequence[float], resize: Sequence[int]) -> None:
    """Check ``region`` (x, y, width, height as ratios of the picture) and ``resize`` (width, height); () for none.

    Raises:
        SettingsError: If the region is not inside the picture, or a side is out of range.
    """
    if region:
        inside = len(region) == 4 and min(region) >= 0 and min(region[2:]) > 0  # noqa: PLR2004 - x, y, width, height
        if not inside or max(region[0] + region[2], region[1] + region[3]) > 1 + _SLACK:
            message = f"Expected region as [x, y, width, height] within 0 to 1, got {list(region)}: [0, 0, 1, 1] is all"
            raise SettingsError(message)
    if resize and (len(resize) != 2 or not all(1 <= side <= MAX_SIDE for side in resize)):  # noqa: PLR2004 - two sides
        message = f"Expected resize as [width, height] of 1 to {MAX_SIDE} pixels, got {list(resize)}"
        raise SettingsError(message)
