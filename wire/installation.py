"""The distribution of this program: ``tinyfleet``, or the device's part of it, ``tinyfleet-agent``.

Both own the folders ``wire`` and ``edge_agent``. In one environment each would overwrite files of the other, and take
files along when it is removed, so two are an error. They are found by the names of the folders beside the packages:
``importlib.metadata`` would cost the device's control process 3 MB.
"""

from __future__ import annotations

import re
from pathlib import Path

from wire.errors import InstallationError

FULL, SLIM = "tinyfleet", "tinyfleet-agent"
_SITE = Path(__file__).resolve().parents[1]


def check_alone(site: Path = _SITE) -> None:
    """Check that at most one of the two distributions is installed in ``site``, the folder of the packages.

    Raises:
        InstallationError: If both are.
    """
    if len(_found(site)) > 1:
        message = f"Expected {FULL} or {SLIM} in one environment, got both in {site}: they overwrite each other's files"
        raise InstallationError(f"{message}; run pip uninstall {FULL} {SLIM}, then install one of them")


def install_name(site: Path = _SITE) -> str:
    """Return the name to give to ``pip install`` for an extra of this program."""
    return SLIM if _found(site) == {SLIM} else FULL


def _found(site: Path) -> set[str]:
    """Return which of the two have their metadata in ``site``; a folder that can't be listed has none."""
    try:
        names = [path.name for path in site.iterdir()]
    except OSError:
        return set()
    # Recording installed projects, "The .dist-info directory": NAME-VERSION.dist-info, and - in a name becomes _
    matches = (re.fullmatch(r"(tinyfleet(?:_agent)?)-[^-]+\.dist-info", name) for name in names)
    return {match[1].replace("_", "-") for match in matches if match}
