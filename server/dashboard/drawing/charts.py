"""Small pictures that the server draws as SVG: histograms, lines over time, bars by day. Pure; all text is escaped.

Each has a text for who can't see it, differs by more than colour, and takes its colours from the page's style. A value
that is missing is not drawn: a gap stays a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

Part = Sequence[tuple[int, float]]
_WIDTH, _HIGH, _LEFT, _RIGHT, _TOP, _BOTTOM = 320, 120, 44, 8, 8, 20
_INNER, _TALL = _WIDTH - _LEFT - _RIGHT, _HIGH - _TOP - _BOTTOM
_DAY_MS = 86_400_000


def histogram(
    window: Sequence[float], reference: Sequence[float], edges: Sequence[float], *, said: str, classes: bool = False
) -> str:
    """Return the shares of ``window`` as bars and those of ``reference`` as a stepped line over them.

    Both have one share (0..1) a bin, or none; ``edges`` part the bins. ``said``: the picture in words.
    """
    count = max(len(window), len(reference), 1)
    top = max([*window, *reference, 0.01])
    step = _INNER / count

    def y(share: float) -> str:
        return _short(_TOP + _TALL * (1 - share / top))

    bars = "".join(
        f"M{_short(_LEFT + i * step + 1)} {_TOP + _TALL}V{y(share)}h{_short(step - 2)}V{_TOP + _TALL}z"
        for i, share in enumerate(window) if share > 0
    )  # fmt: skip
    line = "".join(
        f"{'M' if i == 0 else 'L'}{_short(_LEFT + i * step)} {y(share)}H{_short(_LEFT + (i + 1) * step)}"
        for i, share in enumerate(reference)
    )
    body = f'<path class="tf-hist-bar" d="{bars}"/><path class="tf-step" d="{line}"/>'
    if classes:
        ends = ("class 0", "", f"{count - 1} and more")
    elif edges:
        ends = (f"< {edges[0]:.3g}", f"{edges[len(edges) // 2]:.3g}", f"≥ {edges[-1]:.3g}")
    else:
        ends = ("lowest", "", "highest")
    return _picture(body + _levels(f"{100 * top:.0f} %", "0") + _ends(ends), said)


def lines(drawn: Sequence[Sequence[Part]], from_ms: int, until_ms: int, unit: str, *, said: str) -> str:
    """Return up to three lines over time, each of unbroken parts of (UTC ms, value); the second is dashed.

    The lowest level is 0, or the lowest value if that is below.
    """
    values = [value for line in drawn for part in line for _, value in part]
    low, high = min([0.0, *values]), max([0.0, *values])
    high = high if high > low else low + 1.0
    span = max(until_ms - from_ms, 1)

    def point(at_ms: int, value: float) -> str:
        x, y = _LEFT + _INNER * (at_ms - from_ms) / span, _TOP + _TALL * (high - value) / (high - low)
        return f"{_short(x)} {_short(y)}"

    body = ""
    for place, line in enumerate(drawn):
        runs = ("L".join(point(*one) for one in part) + ("h.01" if len(part) == 1 else "") for part in line)
        path = "".join(f"M{run}" for run in runs)
        body += f'<path class="tf-line tf-line-{place}" d="{path}"/>'
    ends = (_moment(from_ms, span), "", _moment(until_ms, span))
    return _picture(body + _levels(_figure(high, unit), _figure(low, unit)) + _ends(ends), said)


def days(values: Sequence[tuple[str, float | None]], unit: str, *, said: str) -> str:
    """Return a bar for each day, the oldest first; a day without a value (None) has none."""
    high = max([value for _, value in values if value is not None] + [0.0]) or 1.0
    step = _INNER / max(len(values), 1)
    bars = "".join(
        f"M{_short(_LEFT + i * step + 1)} {_TOP + _TALL}V{_short(_TOP + _TALL * (1 - value / high))}"
        f"h{_short(max(step - 2, 1))}V{_TOP + _TALL}z"
        for i, (_, value) in enumerate(values) if value
    )  # fmt: skip
    ends = (values[0][0], "", values[-1][0]) if values else ("", "", "")
    return _picture(f'<path class="tf-hist-bar" d="{bars}"/>' + _levels(_figure(high, unit), "0") + _ends(ends), said)


def _picture(body: str, said: str) -> str:
    axis = f'<path class="tf-axis" d="M{_LEFT} {_TOP}V{_TOP + _TALL}H{_WIDTH - _RIGHT}"/>'
    return (
        f'<svg class="tf-picture" viewBox="0 0 {_WIDTH} {_HIGH}" role="img" aria-label="{escape(said)}">'
        f"{axis}{body}</svg>"
    )


def _levels(high: str, low: str) -> str:
    text = f'<text x="{_LEFT - 4}" y="{{y}}" text-anchor="end">{{text}}</text>'
    levels = ((_TOP + 8, high), (_TOP + _TALL, low))
    return "".join(text.format(y=y, text=escape(one)) for y, one in levels)


def _ends(texts: tuple[str, str, str]) -> str:
    places = ((_LEFT, "start"), (_LEFT + _INNER / 2, "middle"), (_WIDTH - _RIGHT, "end"))
    return "".join(
        f'<text x="{_short(x)}" y="{_HIGH - 6}" text-anchor="{anchor}">{escape(text)}</text>'
        for (x, anchor), text in zip(places, texts, strict=True) if text
    )  # fmt: skip


def _moment(at_ms: int, span_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.strftime("%H:%M UTC" if span_ms <= _DAY_MS else "%d %b %H:%M")


def _figure(value: float, unit: str) -> str:
    """Return a level of the axis in at most seven characters; the unit is in the title unless it is one sign."""
    text = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004
    return text + (unit if len(unit) == 1 else "")


def _short(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
