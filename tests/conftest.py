"""What tests of several packages need: a disk that is small enough to fill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of the test module's ``DISK_BYTES``; skips where we may not mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = f"size={request.module.DISK_BYTES}"
    command = ["mount", "-t", "tmpfs", "-o", size, "tinyfleet-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
