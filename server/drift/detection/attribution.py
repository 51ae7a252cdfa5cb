"""Attributes evidence to streams and their direction of change, and words it for people.

Decides texts, never alarms. Three rules keep the texts true and short:

- A stream that shifted as a whole is reported as shifted, even if a tilt for spread has more evidence: a histogram
  with all mass in its first bin also has the largest possible spread, yet a person calls it "darker".
- Streams of one property (brightness three ways, sharpness three ways) are one subject, named once, by the plainest
  stream that has much evidence.
- Of the subjects with much evidence the plainest come first. Once a stream is far off, its evidence measures how
  often that was seen, not how far it moved, so a finer order would only be noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from server.drift.detection.reference import SHAPES, THETAS, Floats, Singles


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrases:
    """A stream's ``subject``, and the words for its moving up, down, or in both directions."""

    subject: str
    up: str
    down: str
    other: str


def _always(subject: str, change: str) -> Phrases:
    return Phrases(subject=subject, up=change, down=change, other=change)


_PHRASES: Mapping[str, Phrases] = {
    "luma_mean": Phrases(subject="light", up="brighter", down="darker", other="unsteady light"),
    "dark_ratio": Phrases(subject="light", up="more dark areas", down="fewer dark areas", other="unsteady dark areas"),
    "clipped_ratio": Phrases(
        subject="light", up="more clipped areas", down="fewer clipped areas", other="unsteady clipped areas"
    ),
    "laplacian_log": Phrases(subject="sharpness", up="sharper or noisier", down="blurrier", other="unsteady sharpness"),
    "gradient_x": Phrases(
        subject="sharpness", up="more vertical edges", down="fewer vertical edges", other="other vertical edges"
    ),
    "gradient_y": Phrases(
        subject="sharpness", up="more horizontal edges", down="fewer horizontal edges", other="other horizontal edges"
    ),
    "luma_sd": Phrases(
        subject="contrast", up="harder contrast", down="flatter (less contrast)", other="unsteady contrast"
    ),
    "noise": Phrases(subject="noise", up="noisier", down="less noisy", other="unsteady noise"),
    "red_green": Phrases(subject="red", up="redder", down="greener", other="other colours"),
    "blue_yellow": Phrases(subject="blue", up="bluer", down="yellower", other="other colours"),
    "confidence": Phrases(
        subject="certainty", up="more confident", down="less confident", other="confident now and then"
    ),
    "entropy": Phrases(
        subject="certainty", up="less sure between classes", down="surer between classes", other="sure now and then"
    ),
    "margin": Phrases(subject="certainty", up="more decisive", down="less decisive", other="decisive now and then"),
    "predicted": _always("classes", "other classes than usual"),
    "value": Phrases(
        subject="predicted values",
        up="higher predictions",
        down="lower predictions",
        other="other predictions than usual",
    ),
    "residual": Phrases(
        subject="novelty", up="looks unlike training", down="closer to the average of training", other="other content"
    ),
    "projection": _always("novelty", "looks unlike training"),
}
"""One row per stream; subjects are named in this order."""

_OF_NUMBERS: Mapping[str, tuple[str, str, str]] = {
    "luma_mean": ("values higher", "values lower", "unsteady values"),
    "dark_ratio": ("more low values", "fewer low values", "unsteady low values"),
    "clipped_ratio": ("more high values", "fewer high values", "unsteady high values"),
    "laplacian_log": ("more abrupt values", "smoother values", "other steps between values"),
    "gradient_x": ("larger steps between columns", "smaller steps between columns", "other steps between columns"),
    "gradient_y": ("larger steps between rows", "smaller steps between rows", "other steps between rows"),
    "luma_sd": ("values more spread", "values less spread", "unsteady spread of values"),
}
"""For inputs that are no pictures, up, down and other: the same measures are taken of the array of a front end."""

_ROWS = {stream: row for row, stream in enumerate(_PHRASES)}
_SUBJECTS = {subject: rank for rank, subject in enumerate(dict.fromkeys(one.subject for one in _PHRASES.values()))}
_UP, _DOWN = {"up", "tail_up", "high_end"}, {"down", "tail_down", "low_end"}
UNKNOWN_CAUSE = "no single cause"
_OTHERWISE = {"spread": "{name} more spread", "narrow": "{name} less spread"}
_MOVED_RATIO = 1 / 3  # a plain shift is reported if it has this share of the best tilt's evidence
_MUCH, _SOME = 1 / 3, 1 / 8  # shares of the largest subject's evidence: named first, named at all
_INPUTS, _OUTPUTS = 3, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One stream's share of the evidence (0..1), the shape of its change, and the words for it."""

    stream: str
    kind: str
    shape: str
    share_ratio: float
    words: str


@cache
def words(stream: str, shape: str, *, pictures: bool = True) -> str:
    """Return the words for a change of ``shape`` in ``stream``: "darker", "blurrier", "less confident".

    ``pictures``: whether the inputs are; of others "values lower".
    """
    if not pictures and stream in _OF_NUMBERS:
        up, down, other = _OF_NUMBERS[stream]
        return up if shape in _UP else down if shape in _DOWN else other
    phrases = _phrases(stream)
    if phrases is not None:
        return phrases.up if shape in _UP else phrases.down if shape in _DOWN else phrases.other
    name = stream.replace("_", " ")
    template = _OTHERWISE.get(shape, "{name} higher" if shape in _UP else "{name} lower")
    return template.format(name=name)


def _phrases(stream: str) -> Phrases | None:
    return _PHRASES.get(stream) or _PHRASES.get(stream.rpartition("_")[0])


def shares(recent: Floats, streams: Sequence[tuple[str, str]], *, pictures: bool = True) -> tuple[Share, ...]:
    """Return the streams' shares of the evidence, largest first; streams without any are left out.

    ``recent`` (S, 24): the sums of ``evidence.fade``; ``streams``: (name, kind). A stream counts with its best tilt, so
    that several related tilts are not added up. ``pictures``: as in ``words``.
    """
    best = recent.max(axis=1)
    total = float(best.sum())
    if total <= 0:
        return ()
    by_shape = recent.reshape(len(recent), len(SHAPES), len(THETAS)).max(axis=2)
    order = [int(i) for i in np.argsort(-best, kind="stable") if best[i] > 0]
    return tuple(_share(streams[i], _direction(by_shape[i]), float(best[i]) / total, pictures) for i in order)


def main_streams(found: Sequence[Share]) -> tuple[str, ...]:
    """Return the streams that have most of the evidence: each at least a third of what the largest has."""
    limit = _MUCH * max((share.share_ratio for share in found), default=0.0)
    return tuple(sorted(share.stream for share in found if share.share_ratio >= limit))


def top_shares(
    recent: Floats | Singles, streams: Sequence[tuple[str, str]], count: int, *, pictures: bool = True
) -> list[tuple[Share, ...]]:  # fmt: skip
    """Return the ``count`` largest ``shares`` of each of D devices, from ``recent`` (D, S, 24)."""
    best = recent.max(axis=2)
    total = best.sum(axis=1)
    by_shape = recent.reshape(*recent.shape[:2], len(SHAPES), len(THETAS)).max(axis=3)
    up, down = by_shape[..., SHAPES.index("up")], by_shape[..., SHAPES.index("down")]
    moved = np.where(up > down, SHAPES.index("up"), SHAPES.index("down"))
    plain = np.maximum(up, down) >= _MOVED_RATIO * by_shape.max(axis=2)
    shape = np.where(plain, moved, by_shape.argmax(axis=2))
    order = np.argsort(-best, axis=1, kind="stable")[:, :count]
    found = (np.take_along_axis(one, order, axis=1).tolist() for one in (best, shape))
    return [
        tuple(
            _share(streams[i], SHAPES[moved], evidence / all_of_it, pictures)
            for i, evidence, moved in zip(*of_device, strict=True) if evidence > 0
        )
        for all_of_it, *of_device in zip(total.tolist(), order.tolist(), *found, strict=True)
    ]  # fmt: skip


def _direction(evidence: Floats) -> str:
    """Return the shape to report for one stream, from its evidence by shape (8,): a plain shift if there is one."""
    up, down = float(evidence[SHAPES.index("up")]), float(evidence[SHAPES.index("down")])
    if max(up, down) >= _MOVED_RATIO * float(evidence.max()):
        return "up" if up > down else "down"
    return SHAPES[int(evidence.argmax())]


def _share(stream: tuple[str, str], shape: str, share_ratio: float, pictures: bool) -> Share:  # noqa: FBT001 - as in ``words``
    said = words(stream[0], shape, pictures=pictures)
    return Share(stream=stream[0], kind=stream[1], shape=shape, share_ratio=share_ratio, words=said)


def sentence(found: Sequence[Share]) -> str:
    """Return the cause in words: up to three subjects of the inputs, then one of the outputs.

    "darker, blurrier, flatter (less contrast); less confident". The embedding is named only if no plainer subject
    explains the change.
    """
    said = _subjects(found, "input")[:_INPUTS] or _subjects(found, "embedding")[:1]
    outputs = _subjects(found, "output")[: _OUTPUTS if said else _OUTPUTS + 1]
    parts = [
        ", ".join(dict.fromkeys(share.words for share in sorted(part, key=_rank))) for part in (said, outputs) if part
    ]
    return "; ".join(parts) or UNKNOWN_CAUSE


def _subjects(found: Sequence[Share], kind: str) -> list[Share]:
    """Return the plainest strong share of each subject of ``kind`` with enough evidence, most important first."""
    limit = max((share.share_ratio for share in found), default=0.0)
    telling: dict[str, Share] = {}
    for share in sorted(found, key=lambda share: (share.share_ratio < _MUCH * limit, _row(share), -share.share_ratio)):
        telling.setdefault(_subject(share), share)
    worth = [share for share in telling.values() if share.kind == kind and share.share_ratio >= _SOME * limit]
    return sorted(worth, key=lambda share: (share.share_ratio < _MUCH * limit, _rank(share), -share.share_ratio))


def _subject(share: Share) -> str:
    phrases = _phrases(share.stream)
    return phrases.subject if phrases else share.stream


def _row(share: Share) -> int:
    return _ROWS.get(share.stream, len(_ROWS))


def _rank(share: Share) -> int:
    return _SUBJECTS.get(_subject(share), len(_SUBJECTS))
