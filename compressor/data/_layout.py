"""What the folders of a data set say of each file: its split, its class and its recording.

::

    set/cat/001.jpg                 class cat
    set/cat/film-7/001.jpg          class cat, recording film-7
    set/train/cat/001.jpg           split train
    set/val/cat/film-9/002.jpg      split gate: there is no test folder

Decides by names alone and opens no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from compressor.errors import ArchiveError, DataError

_TRAIN, _VAL, _TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")
_OWN = ("calibration", "gate", "reference")
_WORDS = {word: kind for kind, words in (("train", _TRAIN), ("val", _VAL), ("test", _TEST)) for word in words}
SPLIT_FOLDERS = {**_WORDS, **{word: word for word in _OWN}}
"""Kind of split of a top folder, by its name in lower case."""
IMAGES = frozenset({
    ".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip
"""Files that are taken for images; one that a device can't decode is an error, and not passed over."""
_SPEAKER = "_nohash_"
_MASKS = "ground_truth"
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A file of a data set: its path in the archive, and its class, split and recording (empty: not told)."""

    name: str
    label: str
    split: str = ""
    source: str = ""


def is_hidden(name: str) -> bool:
    """Return whether a file or a folder on its path begins with ``.`` or ``_``: thumbnails, ``__MACOSX``, noise."""
    return any(part[:1] in {".", "_"} for part in PurePosixPath(name).parts)


def placed(names: Sequence[str], suffixes: Collection[str], where: str) -> list[Placed]:
    """Return the files among ``names`` that end in one of ``suffixes``, in order, as their folders describe them.

    A single folder around everything is passed over, as are hidden names. ``train``, ``val`` and ``test`` at the top
    are splits if nothing else is there: ``test`` judges (the gate split), and ``val`` too if there is no ``test``;
    beside one, ``val`` is the calibration split. Folders between the class and the file are the recording, if there is
    more than one: equal names in two classes are one recording. In the names of the Speech Commands data set, the
    speaker is what stands before ``_nohash_``. ``ground_truth`` beside ``train`` and ``test`` has the masks of defects
    of MVTec AD: it is passed over, too.

    Raises:
        ArchiveError: If there is no such file.
        DataError: If a file is in no folder of a class, or a folder of a class has no such file.
    """
    seen = _without_masks([(name, PurePosixPath(name).parts) for name in names if not is_hidden(name)])
    found = [(name, parts) for name, parts in seen if PurePosixPath(name).suffix.lower() in suffixes]
    endings = ", ".join(sorted(suffixes))
    if not found:
        message = f"Expected folders of classes with files {endings} in {where}, got {_shown(names)}"
        raise ArchiveError(message)
    depth = _wrapping(parts for _, parts in found)
    tops = {parts[depth].casefold() for _, parts in found if len(parts) > depth + 1}
    splits = splits_of(tops) if tops <= set(SPLIT_FOLDERS) else {}
    depth += bool(splits)
    bare = next((name for name, parts in found if len(parts) < depth + 2), None)
    if bare is not None:
        message = f"Expected every file in a folder of its class in {where}, got {bare[:200]!r}: move it into one"
        raise DataError(message)
    _check_folders(seen, found, depth, endings)
    between = ["/".join(parts[depth + 1 : -1]) for _, parts in found]
    several = len(set(between)) > 1
    return [
        Placed(
            name=name,
            label=parts[depth],
            split=splits[parts[depth - 1].casefold()] if splits else "",
            source=(own if several else "") or _speaker(parts[-1]),
        )
        for (name, parts), own in zip(found, between, strict=True)
    ]


def splits_of(names: Collection[str]) -> dict[str, str]:
    """Return our split of each of ``names``, in lower case, that is the name of one (``SPLIT_FOLDERS``).

    What was kept for testing judges, and what was kept for validation if nothing else is there to judge.
    """
    kinds = {name: SPLIT_FOLDERS[name] for name in names if name in SPLIT_FOLDERS}
    judged = bool({"test", "gate"} & set(kinds.values()))
    of_kind = {"test": "gate", "val": "calibration" if judged else "gate"}
    return {name: of_kind.get(kind, kind) for name, kind in kinds.items()}


def _without_masks(seen: list[tuple[str, tuple[str, ...]]]) -> list[tuple[str, tuple[str, ...]]]:
    """Return ``seen`` without the files below a folder ``ground_truth`` that stands beside ``train`` and ``test``.

    Source: Bergmann et al., MVTec AD, 2019: ``ground_truth/DEFECT/NAME_mask.png``.
    """
    beside = {(parts[:depth], part) for _, parts in seen for depth, part in enumerate(parts[:-1])}

    def is_mask(parts: tuple[str, ...]) -> bool:
        return any(
            part == _MASKS and {(parts[:depth], "train"), (parts[:depth], "test")} <= beside
            for depth, part in enumerate(parts[:-1])
        )

    return [(name, parts) for name, parts in seen if not is_mask(parts)]


def _wrapping(paths: Iterable[tuple[str, ...]]) -> int:
    """Return how many folders stand around all of ``paths`` and inside them still hold folders alone."""
    paths, depth = list(paths), 0
    while all(len(path) > depth + 2 for path in paths) and len({path[depth] for path in paths}) == 1:
        depth += 1
    return depth


def _check_folders(
    seen: Sequence[tuple[str, tuple[str, ...]]], found: Sequence[tuple[str, tuple[str, ...]]], depth: int, endings: str
) -> None:
    """Check that each folder in the place of a class has a file of the kind that is read.

    Raises:
        DataError: If one has none: its class would be missing without a word.
    """
    read = {parts[: depth + 1] for _, parts in found}
    around = {folder[:depth] for folder in read}
    others = Counter(parts[: depth + 1] for _, parts in seen if len(parts) > depth + 1 and parts[:depth] in around)
    for folder, count in sorted(others.items()):
        if folder not in read:
            message = f"Expected files {endings} in the folder {'/'.join(folder)[:200]!r}, got {count} of other kinds"
            remedy = (
                "each folder is a class; give the path of a folder that has classes alone, or convert copies of these"
            )
            raise DataError(f"{message}: {remedy} (boxes are read by dataset = 'boxes')")


def _speaker(file: str) -> str:
    """Return the speaker in a file's name, or empty.

    Source: Warden, Speech Commands, 2018, section 5.10: the part of the name before ``_nohash_`` is the speaker.
    """
    return file.partition(_SPEAKER)[0] if _SPEAKER in file else ""


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN])[:200] + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "") or (
        "no files"
    )
