"""Entry point of ``fleet-server`` and ``python -m server``; a missing dependency gives one line, not a stack."""

from __future__ import annotations

import sys

from wire.extras import missing_extra


def main() -> None:
    """Run the command line; exit code 1 and one line where the server's packages are not installed."""
    try:
        from server.cli import main as run  # noqa: PLC0415 - its imports are what may be missing
    except ImportError as error:
        text = missing_extra(error, "fleet-server", "server")
        if not text:
            raise
        sys.exit(f"error [extra_missing]: {text}")
    run(prog_name="fleet-server")


if __name__ == "__main__":
    main()
