"""Runs torchrun in a process of its own and records in a file how each training process ended.

torchrun's command line reports failures as text on stderr; this runs the same function and keeps them as data.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

_ENDS = "ends.json"


@dataclass(frozen=True, slots=True)
class End:
    """How a failed process ended; a negative ``exit_code`` is the number of a signal."""

    rank: int
    exit_code: int

    def __str__(self) -> str:
        """Describe how it ended."""
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        try:
            return f"signal {signal.Signals(-self.exit_code).name}"
        except ValueError:
            return f"signal {-self.exit_code}"

    @property
    def killed(self) -> bool:
        """Whether it was killed by something other than torchrun, which sends SIGTERM when another process failed."""
        return self.exit_code < 0 and self.exit_code != -signal.SIGTERM


def arguments(folder: Path, processes: int, module: str) -> list[str]:
    """Return the command that runs ``module`` with ``folder`` in ``processes`` processes on this host."""
    return [sys.executable, "-m", __name__, str(folder), str(processes), module]


def ends(folder: Path) -> list[End]:
    """Return how the failed processes of a run in ``folder`` ended; empty if that is not known."""
    path = folder / _ENDS
    return [End(**end) for end in json.loads(path.read_text())] if path.exists() else []


def main(folder: Path, processes: str, module: str) -> int:
    """Run torchrun on this host; return the exit code."""
    loopback = ["--standalone", "--local-addr=127.0.0.1"]  # without the second the host's name would have to resolve
    try:
        asked = [*loopback, f"--nproc-per-node={processes}", "-m", module, str(folder)]
        run.run(run.parse_args(asked))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        found = [asdict(End(rank, failure.exitcode)) for rank, failure in sorted(error.failures.items())]
        part = folder / f"{_ENDS}.part"
        part.write_text(json.dumps(found))
        part.replace(folder / _ENDS)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:4]))
