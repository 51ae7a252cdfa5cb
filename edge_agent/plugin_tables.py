"""``[source]`` and ``[sinks.NAME]`` of ``agent.toml`` after they were checked: kind and keys, as the child gets them.

``edge-agent run`` checks them by the plug-in that they name (``edge_agent.sources``, ``edge_agent.sinks``); the control
process gets them checked and imports no plug-in: 0.3 MB less private memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from wire.codec import Json

MAX_SINKS = 16
"""The file of accounts has a fixed size."""
SOURCE_UNREAD = "source_unread"
"""Event code for inputs of a kind that an earlier release read and the present one does not."""


@dataclass(frozen=True, slots=True)
class _PluginTable:
    """A checked table: the kind, and the given keys as JSON; paths in them are absolute."""

    registry: ClassVar[str]
    kind: str
    keys: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def from_table(cls, value: object, where: str, folder: Path | None) -> Self:
        """Return the checked table; relative paths are relative to ``folder``.

        Raises:
            SettingsError: If the kind is unknown, or its settings reject a key or value.
        """
        registry: Any = importlib.import_module(cls.registry)
        return cls(*registry.checked_table(value, where, folder))

    @classmethod
    def checked(cls, document: Mapping[str, Json]) -> Self:
        """Return the table of a ``document`` that was checked before."""
        keys = dict(document)
        return cls(str(keys.pop("kind")), keys)

    @property
    def document(self) -> dict[str, Json]:
        """The document for the child."""
        return {"kind": self.kind, **self.keys}


@dataclass(frozen=True, slots=True)
class SourceConfig(_PluginTable):
    """``[source]``, checked."""

    registry: ClassVar[str] = "edge_agent.sources"
    kind: str = "directory"


@dataclass(frozen=True, slots=True)
class SinkConfig(_PluginTable):
    """``[sinks.NAME]``, checked."""

    registry: ClassVar[str] = "edge_agent.sinks"
    kind: str = "jsonl"
