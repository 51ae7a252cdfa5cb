"""Decides whether an input or the release is to blame for a crash of the inference child. Pure.

The first suspect is the input in flight: it is set aside, and the release continues. If the release crashes on several
inputs, it is to blame itself: from the ``MAX_INPUTS``-th on, where every ``FORGIVEN_AFTER`` inputs served in between
take one off. Without an input in flight (while loading, or between two inputs) the release is to blame at once.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_INPUTS = 3
FORGIVEN_AFTER = 100


@dataclass(frozen=True, slots=True)
class Suspicion:
    """How many inputs have crashed the child under one release."""

    inputs: int = 0

    def after(self, served: int) -> Suspicion:
        """Return the suspicion after one more crash, before which the child had served ``served`` inputs."""
        return Suspicion(max(0, self.inputs - served // FORGIVEN_AFTER) + 1)

    @property
    def of_the_release(self) -> bool:
        """Whether the release is to blame."""
        return self.inputs >= MAX_INPUTS
