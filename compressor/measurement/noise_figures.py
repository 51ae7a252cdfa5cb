"""Figures of the noise of compression, and how much of it is too much. Pure data: reports and runs use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compressor.export import EMBEDDING

LIMIT_DB = 20.0
"""Signal-to-noise ratio below which a tensor counts as diverged: noise of a tenth of the signal's amplitude."""
MOST_DB = 999.0
"""Said of an output without any difference: infinity has no JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputNoise:
    """One output, or ``part`` of it: its signal-to-noise ratio, the float file's range, values that compression left.

    ``levels``: how many different values the compressed file gave; few of them make ties of scores.
    """

    output: str
    part: str = ""
    sqnr_db: float
    low: float
    high: float
    levels: int

    @property
    def name(self) -> str:
        """The output with its part."""
        return f"{self.part} of {self.output}" if self.part else self.output

    @property
    def noisy(self) -> bool:
        """Whether its noise exceeds a tenth of its signal."""
        return self.sqnr_db < LIMIT_DB

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def noisy_text(found: Sequence[OutputNoise]) -> str:
    """Return the outputs below the limit but the embedding, with their ratio, as text; "" for none."""
    return ", ".join(f"{one.name} {one.sqnr_db:.1f} dB" for one in found if one.noisy and one.output != EMBEDDING)
