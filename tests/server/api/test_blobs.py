"""Bundles over HTTP: checked on the way in, resumable on the way out."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

DATA = bytes(range(256)) * 40
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def stored(fleet: MemoryFleet) -> MemoryFleet:
    """A server with one blob."""
    assert fleet.client("builder").put(f"/api/blobs/{DIGEST}", content=DATA).status_code == 201
    return fleet


def test_up_and_down(stored: MemoryFleet) -> None:
    """The same bytes; the ETag is the digest."""
    answer = stored.client("operator").get(f"/blobs/{DIGEST}")
    assert (answer.content, answer.headers["etag"]) == (DATA, f'"{DIGEST}"')
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "expected"), [("bytes=100-199", DATA[100:200]), ("bytes=10000-", DATA[10000:]), ("bytes=-5", DATA[-5:])]
)
def test_a_range(stored: MemoryFleet, asked: str, expected: bytes) -> None:
    """A download continues where it stopped."""
    answer = stored.client("operator").get(f"/blobs/{DIGEST}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["content-range"].endswith(f"/{len(DATA)}")


def test_a_range_behind_the_end(stored: MemoryFleet) -> None:
    """416 tells a client that its part is longer than the blob."""
    answer = stored.client("operator").get(f"/blobs/{DIGEST}", headers={"Range": f"bytes={len(DATA)}-"})
    assert answer.status_code == 416


def test_a_range_of_another_blob_is_the_whole(stored: MemoryFleet) -> None:
    """``If-Range`` with a stale digest never mixes two bundles."""
    headers = {"Range": "bytes=5-", "If-Range": '"' + "0" * 64 + '"'}
    assert stored.client("operator").get(f"/blobs/{DIGEST}", headers=headers).content == DATA
    headers = {"Range": "bytes=5-", "If-Range": f'"{DIGEST}"'}
    assert stored.client("operator").get(f"/blobs/{DIGEST}", headers=headers).status_code == 206


def test_refuses_other_bytes_than_announced(fleet: MemoryFleet) -> None:
    """Nothing of them is stored."""
    answer = fleet.client("builder").put(f"/api/blobs/{DIGEST}", content=DATA + b"x")
    assert (answer.status_code, answer.json()["code"]) == (422, "digest_mismatch")
    assert list(fleet.state.blobs.iterdir()) == []


def test_refuses_names_that_are_no_digest(fleet: MemoryFleet) -> None:
    """No path leads out of the folder."""
    for name in ("abc", "..%2F..%2Fserver.toml", "A" * 64):
        assert fleet.client("builder").put(f"/api/blobs/{name}", content=b"x").status_code in {404, 422}
        assert fleet.client().get(f"/blobs/{name}").status_code == 404


def test_refuses_more_than_the_limit(fleet: MemoryFleet) -> None:
    """By the announced length, before a byte is read."""
    headers = {"Content-Length": str(10**12)}
    answer = fleet.client("builder").put(f"/api/blobs/{DIGEST}", content=b"", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
