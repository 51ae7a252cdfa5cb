"""What to do about files that the served release does not read, by what their suffixes say that they hold.

A suffix that is the release's own kind of input, or that nobody knows, may be named in the settings. One of another
kind means that the model is the wrong one for this folder, or the folder for this model: no suffix mends that.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePath

_KINDS = {
    "pictures": ".png .jpg .jpeg .jpe .jfif .bmp .dib .webp .ppm .pgm .pbm .pnm .tif .tiff .gif .heic .svg",
    "videos": ".mp4 .avi .mkv .mov .webm",
    "sound": ".wav .wave .mp3 .flac .ogg .opus .m4a .aac",
    "rows of numbers": ".csv .tsv .json .jsonl .f32 .raw .bin .npy .parquet .xls .xlsx",
}
_BY_SUFFIX = {suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes.split()}
_VIDEOS = 'save their frames as PNG, or read them by kind = "camera" in [source] with the path of one'
_SOUND = "convert them (ffmpeg -i FILE -c:a pcm_s16le NEW.wav)"


def kind_of(suffix: str) -> str:
    """Return what files with ``suffix`` (lower case, with dot) hold, "" if it says nothing."""
    return _BY_SUFFIX.get(suffix, "")


def other_kind(name: str, reads: Collection[str]) -> tuple[str, str]:
    """Return what the file ``name`` holds, and what a release that ``reads`` these suffixes reads, if they differ.

    Both are "" where they are the same kind, or where either is not known.
    """
    found, wanted = kind_of(PurePath(name).suffix.lower()), sorted({kind_of(one) for one in reads} - {""})
    return (found, " or ".join(wanted)) if found and wanted and found not in wanted else ("", "")


def step_for(name: str, reads: Collection[str]) -> str:
    """Return the next step for the file ``name`` under a release that reads the suffixes ``reads``."""
    (found, wanted), kind = other_kind(name, reads), kind_of(PurePath(name).suffix.lower())
    if found == "videos" and "pictures" in wanted:
        return _VIDEOS
    if found:
        text = f"they hold {found} and the release reads {wanted}: either the model is the wrong one here (assign a"
        return f"{text} release that reads {found}), or the folder is (set [source] path to one with {wanted})"
    if not kind:
        return "add their suffix in [source] suffixes if they hold what the release reads, or move them away"
    converted = _SOUND if kind == "sound" else f"save them as {' or '.join(sorted(reads))}"
    return f"{converted}, or add their suffix in [source] suffixes if the release reads their content"
