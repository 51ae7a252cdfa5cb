"""Spoken words: a zip or folder of WAV files named ``label_speaker_index.wav``.

The label is the part before the first ``_``, the slice the speaker, the source the file. The device's own front end,
``log_mel`` or ``mfcc``, given by ``[data] front_end``, converts each file to a picture.
Source of the naming: Free Spoken Digit Dataset, https://github.com/Jakobovski/free-spoken-digit-dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from compressor.data._archive import Names, opened
from compressor.data._front_end import Ranged, SensorSample, chosen, ranged, tabled
from compressor.data._table import Table
from compressor.errors import ArchiveError, DataError
from compressor.recipe.model import DataRecipe
from edge_agent.front_ends import log_mel

READS = frozenset({"path", "allow_corrupt", "front_end", "options"})
_PARTS = 3  # of a file's name


def front_end(data: DataRecipe) -> tuple[str, dict[str, float]]:
    """Return the front end's name and all its options, as in the manifest.

    Raises:
        DataError: If the front end is missing or unknown, or an option is unknown or out of range.
    """
    return chosen(data, ("log_mel", "mfcc"))


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the pictures of all WAV files in ``data.path`` (a zip or a folder), in the order of their names.

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, too many or too large entries, or no WAV.
        CorruptImageError: If more files than ``data.allow_corrupt`` are cut off or of another kind.
        DataError: If a file's name does not have three parts, or an option is unknown or out of range.
    """
    path = (root or Path()) / data.path
    return tabled(data, path, front_end(data), samples(path), what="corrupt sounds")


def raw(data: DataRecipe, root: Path | None = None) -> list[Ranged]:
    """Return decibels (``log_mel``) or coefficients (``mfcc``) before conversion to 8 bits, to fit ranges.

    Digital silence (padding) is left out: a range is fitted on recorded sound only.

    Raises:
        ArchiveError: As in ``load``.
        DataError: As in ``load``.
        SensorError: If a file is cut off or of another kind.
    """
    return ranged(samples((root or Path()) / data.path), *front_end(data))


def samples(path: Path) -> Iterator[SensorSample]:
    """Yield the clips in ``path`` (a zip or a folder), in the order of their names.

    Raises:
        ArchiveError: As in ``load``.
        DataError: If a file's name does not have three parts.
    """
    with opened(path) as store:
        found = [name for name in store.names() if name.lower().endswith(".wav")]
        if not found:
            message = f"Expected WAV files (label_speaker_index.wav) in {path}, got none"
            raise ArchiveError(message)
        for name in found:
            yield _sample(store, name)


def _sample(store: Names, name: str) -> SensorSample:
    stem = PurePosixPath(name).stem
    parts = stem.split("_")
    if len(parts) < _PARTS or not all(parts):
        message = f"Expected a file named label_speaker_index.wav, got {name[:200]!r}: rename it"
        raise DataError(message)
    content = store.read(name, log_mel.MAX_WAV_BYTES)
    return SensorSample(name=name, data=content, label=parts[0], slice="_".join(parts[1:-1]), source=stem)
