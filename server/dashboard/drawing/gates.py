"""Pictures of gates and slices as SVG: a figure with its bound against its limit, and a change. Pure; text is escaped.

Each has a text for who can't see it, and differs by shape as well as by colour.
"""

from __future__ import annotations

from html import escape

_WIDE, _HIGH, _EDGE = 320, 34, 8


def gate_bar(value: float, bound: float | None, limit: float | None, *, passed: bool, said: str) -> str:
    """Return a line with the figure as a dot, its bound as a whisker and the limit as an upright line."""
    shown = [value, *(one for one in (bound, limit) if one is not None)]
    low, high = min(0.0, *shown), max(0.0, *shown)
    span = (high - low) or 1.0

    def x(at: float) -> str:
        return f"{_EDGE + (_WIDE - 2 * _EDGE) * (at - low) / span:.1f}"

    middle, tone = _HIGH / 2, "good" if passed else "bad"
    parts = [f'<path class="tf-axis" d="M{_EDGE} {middle}H{_WIDE - _EDGE}"/>']
    if bound is not None:
        parts.append(f'<path class="tf-whisker" d="M{x(value)} {middle}H{x(bound)}M{x(bound)} {middle - 6}v12"/>')
    if limit is not None:
        parts.append(f'<path class="tf-limit" d="M{x(limit)} 3V{_HIGH - 3}"/>')
    parts.append(f'<circle class="tf-dot-{tone}" cx="{x(value)}" cy="{middle}" r="5"/>')
    return _picture("".join(parts), said)


def change_bar(change: float, most: float, *, said: str) -> str:
    """Return a bar from the middle: to the right for worse, to the left for better; ``most`` fills one half."""
    half = _WIDE / 2 - _EDGE
    length = half * min(abs(change) / most, 1.0) if most > 0 else 0.0
    start = _WIDE / 2 if change >= 0 else _WIDE / 2 - length
    tone = "bad" if change > 0 else "good"
    bar = f'<rect class="tf-bar-{tone}" x="{start:.1f}" y="9" width="{length:.1f}" height="16"/>' if length else ""
    return _picture(f'<path class="tf-limit" d="M{_WIDE / 2} 3V{_HIGH - 3}"/>{bar}', said)


def _picture(inside: str, said: str) -> str:
    label = escape(said, quote=True)
    return f'<svg class="tf-gate" viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{label}">{inside}</svg>'
