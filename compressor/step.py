"""Steps: results kept by what they were made from, so that a run resumes where it stopped.

A result's name is the digest of the step's name, the source code it ran and the digests of its inputs. A changed
parameter therefore re-runs that step and only what follows from its *result*: when a step gives the same bytes as
before, the steps after it are found again. Files appear whole or not at all; a damaged one is made anew.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from compressor.errors import PackageError
from wire.canonical import canonical_bytes, sha256_hex

_DIGEST_BYTES = 64
_NETWORKS = "compressor.networks"


@dataclass(frozen=True, slots=True)
class Result:
    """What a step made. ``digest`` is the SHA-256 of ``data``; ``cached``: it was there already."""

    data: bytes
    digest: str
    cached: bool


@dataclass(slots=True)
class Cache:
    """The folder of results. ``ran`` and ``found`` name the steps of this run, in order."""

    folder: Path
    ran: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def step(
        self, name: str, inputs: Mapping[str, str], make: Callable[[], bytes], *, modules: tuple[str, ...] = ()
    ) -> Result:
        """Return what ``make`` returns, or what it returned for equal ``inputs`` and equal code of ``modules``.

        Raises:
            PackageError: If the result can't be written.
        """
        key = sha256_hex(canonical_bytes({"step": name, "inputs": dict(inputs), "code": code_digests(modules)}))
        path = self.folder / f"{name}-{key[:24]}"
        known = _read(path)
        if known is not None:
            self.found.append(name)
            return Result(known, sha256_hex(known), cached=True)
        data = make()
        digest = sha256_hex(data)
        write_atomically(path, digest.encode() + data)
        self.ran.append(name)
        return Result(data, digest, cached=False)


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return data if sha256_hex(data).encode() == digest else None


def code_digests(modules: tuple[str, ...]) -> dict[str, str]:
    """Return the SHA-256 of the source of each module; of a package, of every module below it."""
    digests: dict[str, str] = {}
    for name in modules:
        spec = _located(name)
        if spec is None or spec.origin is None:
            continue
        for path in sorted(Path(folder) for folder in spec.submodule_search_locations or ()):
            digests |= {
                f"{name}/{file.relative_to(path)}": sha256_hex(file.read_bytes()) for file in path.rglob("*.py")
            }
        if not spec.submodule_search_locations:
            digests[name] = sha256_hex(Path(spec.origin).read_bytes())
    return dict(sorted(digests.items()))


def _located(name: str) -> ModuleSpec | None:
    """Return where the module ``name`` lies, without importing the packages it is in."""
    first, *rest = name.split(".")
    spec = importlib.util.find_spec(first)
    for part in rest:
        folders = spec.submodule_search_locations if spec is not None else None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", folders) if spec is not None and folders else None
    return spec


def network_modules(network: str) -> tuple[str, ...]:
    """Return the modules that ``network`` is made of.

    Of one of ours these are its file, what it imports from the folder of networks, and what builds them; of a user's
    ``package.module:build`` the whole folder, which it may import from, and its own package.
    """
    if ":" in network:
        return (_NETWORKS, *plugin_modules(network))
    found, waiting = [f"{_NETWORKS}.__init__"], [f"{_NETWORKS}.{network}"]
    while waiting:
        name = waiting.pop()
        spec = _located(name) if name not in found else None
        if spec is not None and spec.origin is not None:
            found.append(name)
            waiting += _imported(Path(spec.origin).read_bytes(), _NETWORKS)
    return tuple(sorted(found))


def _imported(source: bytes, package: str) -> list[str]:
    """Return the modules of ``package`` that ``source`` may import, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module or ""
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.startswith(f"{package}.")]


def plugin_modules(name: str) -> tuple[str, ...]:
    """Return the modules that the plug-in ``name`` is made of, where it is the user's.

    Of ``package.module:function`` these are the module and its package with all below it; of a plug-in of ours none:
    a step names its folder itself. Modules beside a single file that belongs to no package are not seen.
    """
    module, separator, _ = name.partition(":")
    return tuple(dict.fromkeys((module, module.partition(".")[0]))) if separator else ()


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``: the whole file or none, also when the power goes.

    Raises:
        PackageError: If the disk is full or the folder can't be written.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        message = (
            f"Expected to write {len(data)} bytes to {path}, got: {error.strerror}: free space or choose another --out"
        )
        raise PackageError(message) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
