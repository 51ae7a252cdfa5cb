"""Applies a patch to a bundle. A short-lived child, so that its memory is released and a hostile patch ends only it.

``python -m edge_agent.updater.transfer.patch_child BASE PATCH RESULT LENGTH SHA256`` prints one JSON line and exits 0,
or 1 when it is refused: ``patch_invalid``, ``digest_mismatch`` (the result is not the signed bundle), ``no_space``,
``disk_failed``. ``RESULT`` is then worth nothing.
"""

from __future__ import annotations

import errno
import hashlib
import sys
from pathlib import Path

from wire.canonical import canonical_bytes
from wire.errors import PatchError
from wire.patch import apply_patch


def patched(base: Path, patch: Path, result: Path, length_bytes: int, sha256: str) -> tuple[str, str]:
    """Write what ``patch`` makes from ``base`` to ``result``; return code and text of a refusal, "" for none."""
    digest = hashlib.sha256()
    try:
        with base.open("rb") as old, patch.open("rb") as differences, result.open("wb") as new:

            def write(piece: bytes) -> None:
                digest.update(piece)
                new.write(piece)

            apply_patch(old, differences, write, length_bytes)
    except PatchError as error:
        return error.code, str(error)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        return "no_space" if full else "disk_failed", f"Expected to write {result}, got: {error}"
    if digest.hexdigest() != sha256:
        return "digest_mismatch", f"Expected SHA-256 {sha256[:12]}…, got {digest.hexdigest()[:12]}… from the patch"
    return "", ""


def main(arguments: list[str] | None = None) -> int:
    """Print the verdict as one JSON line; return 0 when the result is the signed bundle, 1 when not."""
    base, patch, result, length_bytes, sha256 = arguments or sys.argv[1:]
    code, text = patched(Path(base), Path(patch), Path(result), int(length_bytes), sha256)
    sys.stdout.buffer.write(canonical_bytes({"ok": not code, "code": code, "text": text}) + b"\n")
    sys.stdout.buffer.flush()
    return 1 if code else 0


if __name__ == "__main__":
    raise SystemExit(main())
