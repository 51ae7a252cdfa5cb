"""The output of every bench: rows with a figure, its reference, and whether the target was met."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; ``met`` is None without a target."""

    what: str
    ours: float
    reference: float | None = None
    target: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over the reference."""
        return self.ours / self.reference if self.reference else None

    def unjudged(self) -> Row:
        """Return this row without a target."""
        return replace(self, target="", met=None)


def told(rows: Sequence[Row], file: Path | None, table: Sequence[Any] = ()) -> int:
    """Print ``rows``, write them to ``file`` if it is given, and return 1 if a target is missed.

    ``table``: dataclasses printed before; with them the file is ``{"table": ..., "rows": ...}``.
    """
    for row in rows:
        ratio = f"{row.ratio:.3f}" if row.ratio else "-"
        reference = "-" if row.reference is None else f"{row.reference:.4g}"
        verdict = {None: "", True: "met", False: "MISSED"}[row.met]
        print(f"{row.what:<78}{row.ours:>11.4g}{reference:>11}{ratio:>8}  {row.target:<14}{verdict}")
    if file is not None:
        listed = [{**asdict(row), "ratio": row.ratio} for row in rows]
        document = {"table": [asdict(line) for line in table], "rows": listed} if table else listed
        file.write_text(json.dumps(document, indent=1))
    return 1 if any(row.met is False for row in rows) else 0
