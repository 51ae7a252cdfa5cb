"""``python -m edge_agent.sources``: checks the keys of an external source for ``SourceConfig``.

Reads kind, keys, folder and message prefix as JSON, and prints the keys as the source accepts them, or what is wrong
with them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from edge_agent import sources
from edge_agent.errors import SourceError
from wire.errors import SettingsError
from wire.settings import fields_from


def main() -> None:
    """Check one source."""
    asked = json.loads(sys.stdin.read())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of the module must not mix with the answer
    folder = None if asked["folder"] is None else Path(asked["folder"])
    answer: dict[str, object]
    try:
        settings = sources.settings_of(asked["kind"])
        answer = {"keys": sources.as_json(fields_from(settings, asked["keys"], asked["where"], folder=folder))}
    except SourceError as error:
        answer = {"error": f"{asked['where']}: {error}"}
    except SettingsError as error:
        answer = {"error": str(error)}
    with answers:
        json.dump(answer, answers)


if __name__ == "__main__":
    main()
