"""The scenes in front of the cameras: images that appear in each device's inbox.

Each device has a pool of encoded images and receives them one by one, at a steady rate. A change of the world gives a
device another pool. The true label of every image is kept here, by digest: it is what a person who labels samples
knows.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True, slots=True)
class Shot:
    """One encoded image and its true label."""

    data: bytes
    label: str

    @property
    def sha256(self) -> str:
        """The digest of the encoded bytes."""
        return hashlib.sha256(self.data).hexdigest()


def shots(images: Sequence[np.ndarray], labels: Sequence[str]) -> tuple[Shot, ...]:
    """Return ``images`` (uint8, (H, W, 3)) as PNG shots."""
    return tuple(Shot(_png(image), label) for image, label in zip(images, labels, strict=True))


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@dataclass(slots=True)
class World:
    """Writes images into inboxes, ``rate_hz`` per second and device, until stopped."""

    inboxes: Mapping[str, Path]
    rate_hz: float
    seed: int = 7
    _pools: dict[str, tuple[Shot, ...]] = field(default_factory=dict)
    _truth: dict[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def show(self, device: str, pool: tuple[Shot, ...]) -> None:
        """Use ``pool`` for ``device`` from now on."""
        self._truth.update({shot.sha256: shot.label for shot in pool})
        self._pools[device] = pool

    def label_of(self, sha256: str) -> str | None:
        """Return the label that a person would give to the image with this digest."""
        return self._truth.get(sha256)

    def start(self) -> None:
        """Start writing in the background."""
        for inbox in self.inboxes.values():
            inbox.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop writing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        chance = random.Random(self.seed)  # noqa: S311 - which image comes next is no secret
        number, start_s = 0, time.monotonic()
        while not self._stop.wait(max(0.0, start_s + number / self.rate_hz - time.monotonic())):
            number += 1
            for device, inbox in self.inboxes.items():
                pool = self._pools.get(device)
                if pool:
                    _appear(inbox, number, pool[chance.randrange(len(pool))])


def _appear(inbox: Path, number: int, shot: Shot) -> None:
    hidden = inbox / f".{number:09d}.png"
    hidden.write_bytes(shot.data)
    os.replace(hidden, inbox / f"{number:09d}.png")  # noqa: PTH105 - Path.replace is the same call
