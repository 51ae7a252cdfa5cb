"""The section on flips: the inputs that compression flipped, with the saliency of each model, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from compressor.measurement.saliency import Flip
from compressor.report import phrases
from compressor.report.contents import Changed, Changes
from compressor.report.thumbnails import data_uri, overlay

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
    flips = "".join(_flip(changed, class_names) for changed in changes.first)
    return f'{said}<div class="flips">{flips}</div><p class="muted">{escape(_NOTE)}</p>'


def _flip(changed: Changed, class_names: Sequence[str]) -> str:
    flip = changed.explained.flip
    label, before, after = (escape(class_names[index]) for index in (flip.label, flip.before, flip.after))
    verdict, word = _outcome(flip)
    return (
        f'<div class="flip">{_pictures(changed, before, after)}'
        f'<p><span class="mark {verdict}">{word}</span> label <b>{label}</b>'
        f'<span class="muted"> · {escape(phrases.short(flip.slice))} · row {flip.row}</span></p>'
        f"<p>{before} <small>margin {flip.before_margin:.2f}</small> → {after} "
        f"<small>margin {flip.after_margin:.2f}</small></p></div>"
    )


def _outcome(flip: Flip) -> tuple[str, str]:
    if flip.lost:
        return "fail", "✗ got worse"
    return ("pass", "✓ got better") if flip.won else ("inconclusive", "other mistake")


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
