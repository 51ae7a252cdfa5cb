"""A bundle made from one that is here and a patch, instead of its full bytes; those are fetched if that fails.

1. Only patches that the signed target names are used, and only those whose base is here and whole.
2. The patch that is chosen must be shorter than what is missing of the full bundle.
3. A short-lived child applies it (``patch_child``). Its result gets the bundle's name only if its digest is the signed
   one; nothing reads it before that.
4. Whatever goes wrong, the full bundle is fetched; the reason is in ``FetchProgress.how``, and so in the record of the
   update and its event. Only a newer desired state ends both.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.device.disk import Disk
from edge_agent.device.record_file import Condition, condition, make_way
from edge_agent.updater.children import NoAnswer, run_child
from edge_agent.updater.ports import Fetcher, FetchOrder, FetchProgress, Refusal, part_of
from wire.tuf_target import Delta

_LOG = logging.getLogger(__name__)
_CHILD_S = 300.0


@dataclass(frozen=True, slots=True)
class PatchedFetcher:
    """A fetcher that uses a patch where there is one. ``fetcher`` fetches patches and full bundles into ``folder``."""

    fetcher: Fetcher
    folder: Path
    disk: Disk

    def fetch(self, order: FetchOrder, progress: FetchProgress) -> Refusal | None:
        """Bring the bundle into the blob folder and check its digest; return None, or why it failed."""
        target = self.folder / order.sha256
        try:
            part = part_of(target)
            held_bytes = part.stat().st_size if part.exists() else 0
            delta = None
            if order.deltas and condition(target, order.sha256) is not Condition.WHOLE:
                delta = self._chosen(order, order.length_bytes - held_bytes)
            if delta is None:
                return self.fetcher.fetch(order, progress)
            refusal = self._patched(order, delta, progress)
            self.disk.remove(self.folder / delta.sha256)
            if refusal is None:
                self.disk.remove(part)
                progress.done_bytes = order.length_bytes
                progress.how = f"made from a patch of {delta.length_bytes} bytes and {delta.base_sha256[:12]}…"
                return None
        except OSError as error:
            refusal = Refusal("disk_failed", f"Expected to write below {self.folder}, got: {error}")
        if progress.cancelled.is_set():
            return refusal
        _LOG.warning("patch not used, the full bundle is fetched code=%s text=%s", refusal.code, refusal.text)
        progress.how = f"fetched in full, the patch was not used: {refusal.code}: {refusal.text}"[:300]
        progress.done_bytes = 0
        return self.fetcher.fetch(order, progress)

    def _chosen(self, order: FetchOrder, missing_bytes: int) -> Delta | None:
        for delta in sorted(order.deltas, key=lambda delta: delta.length_bytes):
            if not 0 < delta.length_bytes < missing_bytes:
                continue  # before its base is read, which may be a whole bundle
            if condition(self.folder / delta.base_sha256, delta.base_sha256) is Condition.WHOLE:
                return delta
        return None

    def _patched(self, order: FetchOrder, delta: Delta, progress: FetchProgress) -> Refusal | None:
        wanted = replace(order, sha256=delta.sha256, length_bytes=delta.length_bytes, deltas=())
        refusal = self.fetcher.fetch(wanted, progress)
        if refusal is not None:
            return refusal
        made = self.folder / f"{order.sha256}.made"
        make_way(made)
        answer = run_child(
            ["edge_agent.updater.transfer.patch_child", str(self.folder / delta.base_sha256),
             str(self.folder / delta.sha256), str(made), str(order.length_bytes), order.sha256], _CHILD_S,
        )  # fmt: skip
        if isinstance(answer, NoAnswer):
            refusal = Refusal(answer.code, f"Expected a patched bundle, got: {answer.text}")
        elif answer.get("ok") is not True:
            refusal = Refusal(str(answer.get("code") or "patch_invalid"), str(answer.get("text", "")))
        if refusal is not None:
            self.disk.remove(made)
            return refusal
        make_way(self.folder / order.sha256)
        self.disk.move(made, self.folder / order.sha256)
        return None
