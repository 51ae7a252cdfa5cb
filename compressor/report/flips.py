"""The section on flips: the inputs that compression flipped, as small pictures with the saliency of each model.

Decides size, colours and scale of the pictures. Does not compute saliency.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compressor.report import phrases
from compressor.report.contents import Changed, Changes

LARGEST_PX = 96
"""Longer sides are reduced to this; smaller pictures stay, and the page magnifies them without smoothing."""
_FOR, _AGAINST = (255, 106, 0), (47, 129, 247)
_STRONGEST = 0.7  # opacity of the strongest saliency
_FADED = 0.75  # contrast of the picture under saliency

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
_NOTE = (
    "Those that got worse first, the most certain first. The coloured pictures show what each model looked at: where "
    "hiding a patch takes certainty from the model's own answer it is orange, where it adds to it blue. Both pictures "
    "of an input share one scale. The margin is the probability of the answer minus that of the runner-up."
)


def section(changes: Changes, class_names: Sequence[str]) -> str:
    """Return how many inputs flipped, and the first of them with their pictures."""
    said = f"<p>{escape(phrases.flips(changes))}</p>"
    if not changes.first:
        return said
    made = []
    for changed in changes.first:
        flip = changed.explained.flip
        label, before, after = (escape(class_names[index]) for index in (flip.label, flip.before, flip.after))
        verdict, word = ("pass", "✓ got better") if flip.won else ("inconclusive", "other mistake")
        verdict, word = ("fail", "✗ got worse") if flip.lost else (verdict, word)
        made.append(
            f'<div class="flip">{_pictures(changed, before, after)}'
            f'<p><span class="mark {verdict}">{word}</span> label <b>{label}</b>'
            f'<span class="muted"> · {escape(phrases.short(flip.slice))} · row {flip.row}</span></p>'
            f"<p>{before} <small>margin {flip.before_margin:.2f}</small> → {after} "
            f"<small>margin {flip.after_margin:.2f}</small></p></div>"
        )
    return f'{said}<div class="flips">{"".join(made)}</div><p class="muted">{escape(_NOTE)}</p>'


def _pictures(changed: Changed, before: str, after: str) -> str:
    """Return the three pictures; ``before`` and ``after`` are already escaped."""
    maps = changed.explained.before, changed.explained.after
    strongest = max(float(np.abs(saliency).max()) for saliency in maps)
    over = [data_uri(overlay(changed.seen, saliency, strongest)) for saliency in maps]
    shown = (
        (data_uri(changed.image), "input"),
        (over[0], f"before: {before}"),
        (over[1], f"after: {after}"),
    )
    made = (f'<figure><img src="{uri}" alt="{said}"><figcaption>{said}</figcaption></figure>' for uri, said in shown)
    return f'<div class="three">{"".join(made)}</div>'


def data_uri(pixels: Pixels) -> str:
    """Return uint8 (H, W, 3) as a PNG in a data URI, at most ``LARGEST_PX`` long."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((LARGEST_PX, LARGEST_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def overlay(pixels: Pixels, saliency: Floats, strongest: float) -> Pixels:
    """Return the picture in grey with ``saliency`` over it: orange in favour of the class, blue against it.

    Args:
        pixels: uint8 (H, W, 3).
        saliency: float32 (H, W).
        strongest: The saliency (above 0) with full opacity; pictures to be compared share it.
    """
    grey = pixels.astype(np.float32).mean(axis=2, keepdims=True)
    ground = 128 + _FADED * (grey - 128)
    cover = _STRONGEST * np.clip(np.abs(saliency) / max(strongest, 1e-9), 0, 1)[..., None]
    colour = np.where(saliency[..., None] > 0, np.array(_FOR, np.float32), np.array(_AGAINST, np.float32))
    return np.asarray(np.rint(ground * (1 - cover) + colour * cover).clip(0, 255), dtype=np.uint8)
