"""A function as a model, for tests: the artifact is the name of a function registered in this process.

An artifact can't contain code: only what the process itself registered runs.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.errors import RuntimeLoadError, RuntimeSeamError
from edge_agent.runtimes._base import Array, Runtime, check_contract, model_input, real_output
from wire.manifest import Manifest

OFFERED = False  # no server can send a function that a process registered itself

Function = Callable[[Array], tuple[Array, ...]]
_functions: dict[str, Function] = {}


def register(name: str, function: Function) -> bytes:
    """Register ``function`` under ``name``; return the artifact that refers to it."""
    _functions[name] = function
    return name.encode()


def load(manifest: Manifest, artifact: bytes, *, threads: int) -> Runtime:
    """Return the function that ``artifact`` names; ``threads`` is ignored.

    Raises:
        RuntimeLoadError: If no such function was registered in this process, or a scale is invalid.
    """
    del threads
    function = _functions.get(artifact[:200].decode(errors="replace"))
    if function is None:
        message = f"Expected the name of a registered function, got {artifact[:40]!r}"
        raise RuntimeLoadError(message)
    for spec in (*manifest.inputs, *manifest.outputs):
        check_contract(spec)
    return _MemoryRuntime(function, manifest)


class _MemoryRuntime:
    def __init__(self, function: Function, manifest: Manifest) -> None:
        self._function: Function | None = function
        self._spec = manifest.inputs[0]
        self._outputs = manifest.outputs

    def run(self, batch: Array) -> tuple[Array, ...]:
        values = model_input(batch, self._spec)
        if self._function is None:
            raise RuntimeSeamError("Expected an open runtime, got a closed one: load it again")
        outputs = self._function(values)
        return tuple(real_output(*pair) for pair in zip(outputs, self._outputs, strict=False))

    def close(self) -> None:
        self._function = None
