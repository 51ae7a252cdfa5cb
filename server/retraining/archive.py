"""``samples.zip``: a worker's training data. The same samples give the same bytes."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterable

from server.retraining.samples import StoredSample

LABELS = "labels.csv"
COLUMNS = ("path", "label", "slice", "lane", "sample")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def distinct(samples: Iterable[StoredSample]) -> tuple[StoredSample, ...]:
    """Return one sample of each image: the first from the audit lane if there is one, otherwise the first."""
    found: dict[str, StoredSample] = {}
    for sample in samples:
        known = found.get(sample.sha256)
        if known is None or (known.lane != "audit" and sample.lane == "audit"):
            found[sample.sha256] = sample
    return tuple(sorted(found.values(), key=lambda sample: sample.sha256))


def build_archive(
    samples: Iterable[StoredSample], slice_of: Callable[[str], str], image_of: Callable[[StoredSample], bytes]
) -> bytes:
    """Return the zip: ``labels.csv`` (path, label, slice, lane, sample) and ``images/<sha256>.<ext>``.

    ``slice_of`` names a device's slice.

    Raises:
        UnknownSampleError: If an image file is missing.
    """
    chosen = distinct(samples)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sample in chosen:
        path = f"images/{sample.file_name}"
        writer.writerow([path, sample.label, slice_of(sample.device), sample.lane, sample.id])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(LABELS), text.getvalue().encode())
        for sample in chosen:
            archive.writestr(_entry(f"images/{sample.file_name}"), image_of(sample))
    return buffer.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr, entry.create_system = 0o644 << 16, 3
    return entry
