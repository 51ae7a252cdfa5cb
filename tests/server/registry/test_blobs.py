"""Blobs on disk: complete or absent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.errors import BlobOversizeError, BlobRefusedError, UnknownBlobError
from server.registry.blobs import Blobs

DIGEST = hashlib.sha256(b"onetwo").hexdigest()


def test_stores_pieces_under_their_digest(tmp_path: Path) -> None:
    """Twice the same is the same."""
    blobs = Blobs(tmp_path)
    assert [blobs.put(DIGEST, [b"one", b"two"]) for _ in range(2)] == [6, 6]
    assert blobs.read(DIGEST) == b"onetwo"
    assert [path.name for path in tmp_path.iterdir()] == [DIGEST]


def test_leaves_nothing_of_a_refused_blob(tmp_path: Path) -> None:
    """Wrong digest, too long, or a source that fails."""

    def failing() -> Iterator[bytes]:
        yield b"one"
        raise OSError("gone")

    blobs = Blobs(tmp_path)
    for chunks, error in (([b"x"], BlobRefusedError), ([b"onetwo"], BlobOversizeError), (failing(), OSError)):
        with pytest.raises(error):
            blobs.put(DIGEST, chunks, limit_bytes=5)
    assert list(tmp_path.iterdir()) == []


def test_sweeps_what_a_killed_server_left(tmp_path: Path) -> None:
    """Unfinished uploads go, blobs stay."""
    blobs = Blobs(tmp_path)
    blobs.put(DIGEST, [b"onetwo"])
    (tmp_path / f"{'0' * 64}.ab.new").write_bytes(b"half")
    blobs.sweep()
    assert [path.name for path in tmp_path.iterdir()] == [DIGEST]


@pytest.mark.parametrize("name", ["../x", "", "0" * 63, "0" * 64])
def test_refuses_what_is_not_there(tmp_path: Path, name: str) -> None:
    """A name that is not a digest reaches no file."""
    with pytest.raises(UnknownBlobError):
        Blobs(tmp_path).read(name)
