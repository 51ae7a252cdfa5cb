"""Pairs of rows that are identical or nearly so, above all across splits.

Near duplicates have difference hashes at most 6 bits apart and thumbnails that differ little after brightness and
contrast are normalised. The hash is cut into 7 bands of 9 bits; such a pair has at least one equal band (pigeonhole),
so only rows that share a band are compared, and no pair is missed. A picture that moved by a pixel differs in its hash,
so its inner part is compared with that of the other at each of nine places; turned and cropped pictures are not found.

Near copies show one object, and count as one observation. Where a data set names no sources, ``with_near_sources``
gives near copies a common one.
Source of the banding: Manku, Jain and Das Sarma, Detecting Near-Duplicates for Web Crawling, 2007, section 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import PIL

from compressor.cache import Cache, Stage
from compressor.data._shades import shaded
from compressor.data._split import joined
from compressor.data._stored_images import Images, shapes_of
from compressor.data._table import Table, Texts
from compressor.exploration.thumbnails import Hashes, Thumbs, thumbnails
from compressor.progress import Progress, StageProgress
from wire.canonical import sha256_hex

MAX_BITS = 6
"""Measured: 3 bits found 66 and 57 % of copies saved again as JPEG of quality 50 (digits, meter digits), 56 and 53 % of
those with noise of 8 levels; 6 find 96 and 86, 93 and 89 % (measured by ``scripts/bench/explore.py``)."""
MAX_DISTANCE = 0.15
"""Root mean square difference in standard deviations of the thumbnail: a correlation of 0.989. Measured: of the 1.6
million pairs of 1,797 handwritten digits none is that close, 16 are at 0.2, 105 at 0.25; of 438 such pairs in 4,000
meter digits 434 have equal labels: frames of the same meter."""
MAX_CANDIDATES = 2_000_000
BANDS = MAX_BITS + 1
_BAND_BITS = 64 // BANDS
_BLOCK = 512
_LEAST_SIDE = 10
_PLACES = tuple((down, right) for down in (0, -1, 1) for right in (0, -1, 1))
"""Where the inner part of a picture is taken, in pixels from its middle; the middle comes first."""
_FLAT, _MAX_FLAT_RMS = 2.0, 1.5  # levels: below this contrast there is only noise to compare, so brightness counts
Rows = npt.NDArray[np.int64]
_ROWS = np.dtype("<i8")


def equal_groups(keys: npt.NDArray[np.str_]) -> list[Rows]:
    """Return the rows of each key that occurs more than once, in order of their first row."""
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    groups = [np.sort(group) for group in np.split(order, cuts) if len(group) > 1]
    return sorted(groups, key=lambda group: int(group[0]))


def near_pairs(
    thumbs: Thumbs, hashes: Hashes, parts: npt.NDArray[np.int64], stage: StageProgress, first_rows: int | None = None
) -> Rows:
    """Return near duplicates in different parts, int64 (pairs, 2), most similar first.

    ``parts``: int64 (N,), the part of each row; rows below 0 are left out. The search stops after ``MAX_CANDIDATES``
    pairs of similar hash: data with that many has a clear result. ``stage`` advances once per band. ``first_rows``: one
    row of each pair is among so many first rows; None: all.
    """
    firsts = len(hashes) if first_rows is None else first_rows
    found, budget = [np.empty(0, np.int64)], MAX_CANDIDATES
    for band in range(BANDS):
        keys = (hashes >> np.uint64(band * _BAND_BITS)) & np.uint64((1 << _BAND_BITS) - 1)
        for pairs in _candidates(keys, hashes, parts, firsts):
            budget -= len(pairs)
            close = pairs[_distance(thumbs, pairs) <= MAX_DISTANCE]
            found.append(close[:, 0] * len(hashes) + close[:, 1])
            if budget < 0:
                break
        stage.advance()
    codes = np.unique(np.concatenate(found))
    pairs = np.stack([codes // len(hashes), codes % len(hashes)], axis=1)
    return pairs[np.argsort(_distance(thumbs, pairs), kind="stable")]


def moved_pairs(images: Images, parts: npt.NDArray[np.int64], progress: Progress) -> Rows:
    """Return near duplicates as ``near_pairs``, of which one may have moved by a pixel; the smaller row comes first.

    ``images``: of a table, read once, with 16 bits twice; of those smaller than ``_LEAST_SIDE`` pixels nothing is
    found.
    """
    kept = np.flatnonzero(shapes_of(images)[:, :2].min(axis=1) >= _LEAST_SIDE)
    count = len(kept) * len(_PLACES)
    with progress.stage("thumbnails of moved pictures", count, "picture") as stage:
        thumbs, hashes = thumbnails(_inner(shaded(images[kept])), count, stage)
    by_place = np.arange(count).reshape(-1, len(_PLACES)).T.ravel()  # all pictures at their middle come first
    thumbs, hashes = thumbs[by_place], hashes[by_place]
    rows = np.tile(kept, len(_PLACES))
    with progress.stage("moved pictures", BANDS, "band") as stage:
        found = rows[near_pairs(thumbs, hashes, parts[rows], stage, len(kept))]
    return np.unique(np.sort(found, axis=1), axis=0) if len(found) else found


def _inner(images: Iterable[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the inner part of each image at each of ``_PLACES``."""
    for image in images:
        height, width = image.shape[:2]
        yield from (image[1 + down : height - 1 + down, 1 + right : width - 1 + right] for down, right in _PLACES)


def with_near_sources(
    table: Table, progress: Progress, unnamed: npt.NDArray[np.bool_] | None = None, cache: Cache | None = None,
    *, as_told: bool = False,
) -> Table:  # fmt: skip
    """Return ``table`` with one source for all near copies, also over several steps; ``progress`` has their number.

    Rows that have a source keep those of their source. ``unnamed``: bool, (N,), the rows for which the data set names
    none; of two near copies one must be such a row (None: any two). Labels are not compared: two labels for one
    picture is one picture. ``as_told``: near copies for which the data set tells different splits stay apart.
    ``cache``: where the result is kept by the pictures' content, so that the next run does not search again.

    Raises:
        PackageError: If the result can't be kept.
    """
    told = table.told if as_told else None

    def search() -> bytes:
        return _near_rows(table, progress, unnamed, told).tobytes()

    if cache is None:
        found = search()
    else:
        apart = {} if told is None else {"told": sha256_hex("\0".join(told.tolist()).encode())}
        inputs = {**_searched(table, unnamed), **apart}
        found = cache.result(Stage(name="near-copies", inputs=inputs, make=search)).data
    sources = table.sources[np.frombuffer(found, dtype=_ROWS)]
    count, left = (len(set(of.tolist())) for of in (table.sources, sources))
    if count > left:
        progress.say(f"{count - left} of {count} sources are near copies of others and count with them")
    return replace(table, sources=sources)


def _near_rows(
    table: Table, progress: Progress, unnamed: npt.NDArray[np.bool_] | None, told: Texts | None = None
) -> Rows:
    """Return for each row a row whose source it takes, int64 (N,): the first of its source, where nothing is near.

    ``told``: the split of each row, str (N,), empty where none is told; near copies in different ones stay apart.
    """
    parts = np.unique(table.sources, return_inverse=True)[1].reshape(-1).astype(np.int64)
    pairs = moved_pairs(table.images, parts, progress)
    if unnamed is not None and len(pairs):
        pairs = pairs[unnamed[pairs].any(axis=1)]
    if told is not None and len(pairs):
        alike = _may_join(table.sources[pairs].tolist(), _splits_of(table.sources, told))
        if not alike.all():
            progress.say(f"{int((~alike).sum())} pairs of near copies lie in different splits and stay there, as told")
        pairs = pairs[alike]
    keys = joined(map(tuple, table.sources[pairs].tolist()))
    names = table.sources.tolist()
    firsts = {name: row for row, name in reversed(list(enumerate(names)))}
    return np.array([firsts[keys.get(name, name)] for name in names], dtype=_ROWS)


def _splits_of(sources: Texts, told: Texts) -> dict[str, str]:
    """Return the split that is told for each source, "" for none."""
    given = {source: name for source, name in zip(sources.tolist(), told.tolist(), strict=True) if name}
    return dict.fromkeys(sources.tolist(), "") | given


def _may_join(pairs: Iterable[Sequence[str]], splits: Mapping[str, str]) -> npt.NDArray[np.bool_]:
    """Return which ``pairs`` of sources can be joined, bool (M,), so that no two ``splits`` meet, over no steps either.

    ``splits``: by source, "" where none is told; such a source goes with the first that it looks like.
    """
    splits, members, allowed = dict(splits), {source: [source] for source in splits}, list[bool]()
    owner = {source: source for source in splits}
    for one, other in pairs:
        first, second = sorted((owner[one], owner[other]), key=lambda source: -len(members[source]))
        told = {splits[first], splits[second]} - {""}
        allowed.append(len(told) < 2)  # noqa: PLR2004 - two different ones
        if allowed[-1] and first != second:
            owner |= dict.fromkeys(members[second], first)
            members[first] += members.pop(second)
            splits[first] = next(iter(told), "")
    return np.array(allowed, dtype=bool)


def _searched(table: Table, unnamed: npt.NDArray[np.bool_] | None) -> dict[str, str]:
    """Return what the near copies of ``table`` depend on: pictures, sources, and the libraries that shrink them."""
    pictures = hashlib.sha256()
    for image in table.images:
        pictures.update(f"{image.shape}".encode())
        pictures.update(np.ascontiguousarray(image).data)
    return {
        "pictures": pictures.hexdigest(),
        "sources": sha256_hex("\0".join(table.sources.tolist()).encode()),
        "unnamed": "" if unnamed is None else sha256_hex(unnamed.tobytes()),
        "versions": f"{np.__version__} {PIL.__version__}",
    }


def _candidates(keys: Hashes, hashes: Hashes, parts: npt.NDArray[np.int64], firsts: int) -> Iterator[Rows]:
    """Yield pairs (first < second) that share a key, are in different parts and are at most ``MAX_BITS`` apart.

    The first row is one of the ``firsts``.
    """
    rows = np.flatnonzero(parts >= 0)
    order = rows[np.argsort(keys[rows], kind="stable")]
    for group in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        if len(group) < 2 or len(set(parts[group].tolist())) < 2:  # noqa: PLR2004 - a pair in two parts
            continue
        group.sort()
        first = group[group < firsts]
        for start in range(0, len(first), _BLOCK):
            block = first[start : start + _BLOCK]
            near = np.bitwise_count(hashes[block][:, None] ^ hashes[group]) <= MAX_BITS
            near &= (parts[block][:, None] != parts[group]) & (block[:, None] < group)
            i, j = np.nonzero(near)
            for cut in range(0, len(i), 65_536):
                some = slice(cut, cut + 65_536)
                yield np.stack([block[i[some]], group[j[some]]], axis=1)


def _distance(thumbs: Thumbs, pairs: Rows) -> npt.NDArray[np.float64]:
    """Return the distance of each pair in standard deviations; for pairs without contrast in levels, to that scale."""
    parts = np.array_split(pairs, len(pairs) // 16_384 + 1)
    return np.concatenate([_between(thumbs[some[:, 0]], thumbs[some[:, 1]]) for some in parts])


def _between(first: Thumbs, second: Thumbs) -> npt.NDArray[np.float64]:
    flat = np.minimum(first.std(axis=(1, 2)), second.std(axis=(1, 2))) < _FLAT
    apart = _rms(_even(first) - _even(second))
    distances: npt.NDArray[np.float64] = np.where(flat, _rms(first - second) * (MAX_DISTANCE / _MAX_FLAT_RMS), apart)
    return distances


def _even(thumbs: Thumbs) -> Thumbs:
    """Return ``thumbs`` with mean 0 and standard deviation 1."""
    light = thumbs - thumbs.mean(axis=(1, 2), keepdims=True)
    even: Thumbs = light / np.maximum(light.std(axis=(1, 2), keepdims=True), 1.0)
    return even


def _rms(differences: Thumbs) -> npt.NDArray[np.float64]:
    rms: npt.NDArray[np.float64] = np.sqrt((differences**2).mean(axis=(1, 2), dtype=np.float64))
    return rms
