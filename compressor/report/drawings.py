"""The section of pictures with something drawn on them, such as boxes; the task decides what.

Photographs are JPEG here: as PNG a few would be larger than the rest of the page's own content.
"""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compressor.report.contents import Drawings

_QUALITY = 82


def section(drawings: Drawings) -> str:
    """Return the text, the legend, and the pictures with their captions."""
    said = f"<p>{escape(drawings.text)}</p>"
    if not drawings.pictures:
        return said
    swatches = "".join(
        f'<span><i style="background:{escape(colour)}"></i>{escape(word)}</span>'
        for word, colour in drawings.legend.items()
    )
    made = "".join(
        f'<figure><img src="{jpeg_uri(pixels)}" alt="{escape(words)}"><figcaption>{escape(words)}</figcaption></figure>'
        for pixels, words in drawings.pictures
    )
    return f'{said}<p class="legend muted">{swatches}</p><div class="drawn">{made}</div>'


def jpeg_uri(pixels: NDArray[np.uint8]) -> str:
    """Return uint8 (H, W, 3) as a JPEG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
