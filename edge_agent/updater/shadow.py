"""Judges a shadow: whether it is over, and whether its counts refuse the release. Pure.

Disagreement is no error: the champion may be the one that is wrong. It refuses a release only above the limit that the
server ordered, and only at the end, because inputs that follow each other show the same scene.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire.shadow import ShadowCounts, ShadowOrder

ENOUGH_INPUTS = 20  # with fewer, a ratio means nothing
PATIENCE_S = 600.0
NO_ROOM = "shadow_no_room"


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """``over``: decided; ``code`` empty: go on to the switch, and ``text`` sums up what was compared."""

    over: bool = False
    code: str = ""
    text: str = ""


def longest_s(order: ShadowOrder) -> float:
    """Return after how long a shadow ends even if its challenger was rarely beside a champion."""
    return 2 * order.seconds + PATIENCE_S


def judge_shadow(order: ShadowOrder, counts: ShadowCounts, max_error_ratio: float, *, too_long: bool) -> ShadowResult:
    """Return whether the shadow is over, and how it ended."""
    tried, ratio = counts.n + counts.errors, counts.disagreement_ratio
    if tried >= ENOUGH_INPUTS and counts.error_ratio > max_error_ratio:
        text = f"Expected the challenger to answer what the champion did, got {counts.errors} errors in {tried} inputs"
        return ShadowResult(True, "shadow_errors", text)
    if counts.seconds < order.seconds and not too_long:
        return ShadowResult()
    if tried < ENOUGH_INPUTS:
        text = f"Expected at least {ENOUGH_INPUTS} inputs in the shadow, got {tried}"
        return ShadowResult(True, "shadow_too_few" if order.required else "", text)
    if ratio is not None and ratio > order.max_ratio:
        text = f"Expected at most {order.max_ratio:.2%} of two labels, got {counts.disagreed} of {counts.n} inputs"
        return ShadowResult(True, "shadow_disagreement", text)
    text = f"{counts.n} inputs compared"
    return ShadowResult(True, "", text if ratio is None else f"{text}, {counts.disagreed} with two labels")
