"""Makes a patch from one bundle to the next: aligned bytewise differences, and xz (format: ``wire.patch``).

Decides which bytes of the new bundle are compared with which of the base: entries of one name; those of equal length
position by position (retrained weights), others between runs of bytes that both have. A retraining that leaves body
and scales as they are (``[train] fine_tune_layers = "head"``) makes a patch of a few percent of the bundle.
"""

from __future__ import annotations

import io
import lzma
import zipfile
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np

from wire.leb128 import encode
from wire.patch import MAGIC, MAX_SEGMENTS, lzma_filter

_RUN_BYTES = 8
"""The shortest run of equal bytes that is looked for in entries of different lengths."""
_COMPARED_BYTES = 4096
_CANDIDATES = 8  # before and after the place where the last run went on
_ZIP_HEADER_BYTES = 30
_SETTINGS = (0, 93, 4, 90)  # of LZMA, as in the patch: lc 0, the usual ones (lc 3, pb 2), lc 4, pb 2
_EFFORT = {"preset": 9 | lzma.PRESET_EXTREME}
_TRIED_BYTES = 8 << 20  # of larger ones only the first settings are tried: each takes a second per megabyte
Segment = tuple[int, int, int]


def make_patch(base: bytes, new: bytes) -> bytes:
    """Return the patch that makes the bundle ``new`` from the bundle ``base``."""
    found = []
    for differences_in_text in (False, True):
        segments = _joined(base, new, differences_in_text=differences_in_text)
        if len(segments) <= MAX_SEGMENTS:
            found.append(_packed(base, new, segments))
    return min(found or [_packed(base, new, [(0, 0, len(new))])], key=len)


def _joined(base: bytes, new: bytes, *, differences_in_text: bool) -> list[Segment]:
    """Return segments that cover ``new``: where the base is copied, how many bytes, and how many new ones follow."""
    segments: list[Segment] = []
    for start, copied, added in _aligned(base, new, differences_in_text=differences_in_text):
        if segments:
            before, length, extra = segments[-1]
            if not extra and copied and start == before + length:
                segments[-1] = (before, length + copied, added)
                continue
            if not copied:
                segments[-1] = (before, length, extra + added)
                continue
        segments.append((start, copied, added))
    return segments


def _aligned(base: bytes, new: bytes, *, differences_in_text: bool) -> Iterator[Segment]:
    regions = _regions(base)
    for name, (start, end) in _regions(new).items():
        base_start, base_end = regions.get(name, (0, 0))
        text = name.endswith((".json", ".md"))
        if end - start == base_end - base_start and not text:
            yield base_start, end - start, 0
        else:
            differences = differences_in_text or not text
            for at, copied, added in _runs(base[base_start:base_end], new[start:end], differences=differences):
                yield base_start + at, copied, added


def _regions(bundle: bytes) -> dict[str, tuple[int, int]]:
    """Return where the parts of a stored zip are: each entry, the header before it (``:NAME``), and the directory."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        directory = archive.start_dir
    regions = {}
    for info in infos:
        start = info.header_offset + _ZIP_HEADER_BYTES + len(info.filename.encode()) + len(info.extra)
        regions[f":{info.filename}"] = (info.header_offset, start)
        regions[info.filename] = (start, start + info.file_size)
    regions[":"] = (directory, len(bundle))
    return regions


def _runs(old: bytes, new: bytes, *, differences: bool) -> Iterator[Segment]:
    """Yield segments from runs that both have; what is between two is subtracted, or taken as new."""
    old_end = new_end = 0
    copied_at, copied = 0, 0
    for old_at, new_at, length in [*_matches(old, new), (len(old), len(new), 0)]:
        gap = new_at - new_end
        subtracted = max(0, min(gap, old_at - old_end)) if differences else 0
        yield copied_at, copied + subtracted, gap - subtracted
        copied_at, copied = old_at, length
        old_end, new_end = old_at + length, new_at + length
    yield copied_at, copied, 0


def _matches(old: bytes, new: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (place in ``old``, place in ``new``, length) of equal runs, in the order of ``new``."""
    places: dict[bytes, list[int]] = {}
    step = max(1, len(old) >> 20)  # of a large entry not every place is an anchor
    for at in range(0, len(old) - _RUN_BYTES + 1, step):
        places.setdefault(old[at : at + _RUN_BYTES], []).append(at)
    old_at = new_at = at = 0
    while at <= len(new) - _RUN_BYTES:
        found = places.get(new[at : at + _RUN_BYTES], [])
        if not found:
            at += 1
            continue
        near = bisect_left(found, old_at + at - new_at)
        candidates = found[max(0, near - _CANDIDATES) : near + _CANDIDATES]
        lengths = [_RUN_BYTES + _equal(old, place + _RUN_BYTES, new, at + _RUN_BYTES) for place in candidates]
        length = max(lengths)
        place = candidates[lengths.index(length)]
        back = 0
        while back < min(place, at - new_at) and old[place - back - 1] == new[at - back - 1]:
            back += 1
        yield place - back, at - back, length + back
        old_at, new_at = place + length, at + length
        at = new_at


def _equal(old: bytes, old_at: int, new: bytes, new_at: int) -> int:
    """Return how many bytes from the two places on are equal."""
    size, at = min(len(old) - old_at, len(new) - new_at), 0
    while at < size:
        part = min(_COMPARED_BYTES, size - at)
        differ = np.frombuffer(old, np.uint8, part, old_at + at) != np.frombuffer(new, np.uint8, part, new_at + at)
        if differ.any():
            return at + int(differ.argmax())
        at += part
    return size


def _packed(base: bytes, new: bytes, segments: list[Segment]) -> bytes:
    steps, differences, added, at, end = [], bytearray(), bytearray(), 0, 0
    for start, copy, fresh in segments:
        step = start - end
        steps.append(2 * step if step >= 0 else -2 * step - 1)
        differences += (np.frombuffer(new, np.uint8, copy, at) - np.frombuffer(base, np.uint8, copy, start)).tobytes()
        added += new[at + copy : at + copy + fresh]
        at, end = at + copy + fresh, start + copy + fresh
    numbers = [len(segments), *steps, *(copy for _, copy, _ in segments), *(fresh for _, _, fresh in segments)]
    content = encode(numbers) + bytes(added) + bytes(differences)
    tried = _SETTINGS if len(content) <= _TRIED_BYTES else _SETTINGS[:1]
    packed = (
        bytes([settings]) + lzma.compress(content, lzma.FORMAT_RAW, filters=[{**lzma_filter(settings), **_EFFORT}])
        for settings in tried
    )
    return MAGIC + min(packed, key=len)
