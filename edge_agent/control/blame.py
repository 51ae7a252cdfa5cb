"""Is the input or the release to blame for the end of the inference child? Pure.

The first suspect is the input that was in flight: it is set aside, and the release goes on. A release that ends on
input after input is to blame itself: from the ``MAX_INPUTS``-th on, where every ``FORGIVEN_AFTER`` inputs served in
between take one off. Without an input in flight (at loading, between two inputs) it is the release at once.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_INPUTS = 3
FORGIVEN_AFTER = 100


@dataclass(frozen=True, slots=True)
class Suspicion:
    """How many inputs have ended the child under one release."""

    inputs: int = 0

    def after(self, served: int) -> Suspicion:
        """Return the suspicion after one more, before which the child had served ``served`` inputs."""
        return Suspicion(max(0, self.inputs - served // FORGIVEN_AFTER) + 1)

    @property
    def of_the_release(self) -> bool:
        """Whether it is the release that can't be right."""
        return self.inputs >= MAX_INPUTS
