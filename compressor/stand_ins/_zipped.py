"""A zip of generated files whose bytes depend only on their contents."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from compressor.cache import write_atomically


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write ``files`` by name into the zip at ``path``; return ``path``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980, so that the date of writing has no effect
    write_atomically(path, buffer.getvalue())
    return path
