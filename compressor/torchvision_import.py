"""Makes torchvision importable beside a CPU build of torch, for our networks and for a person's own plug-ins.

torchvision on the package index is a CUDA build, whose import fails beside a CPU torch with "operator torchvision::nms
does not exist". Declaring the operators first fixes that and changes nothing if the real extension loads. A finder at
the front of ``sys.meta_path`` declares them when torchvision is about to be imported, so torch is not loaded otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[Any] = []
"""Referenced here, because a library that is garbage-collected takes its declarations with it."""


class _Declaring:
    """Declares torchvision's operators before it is imported; never finds a module itself."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        del path, target
        if name == "torchvision" and not _libraries:
            import torch  # noqa: PLC0415 - torchvision imports it next

            library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            for operator, schema in _SCHEMAS.items():
                library.define(operator + schema)  # type: ignore[no-untyped-call]
            _libraries.append(library)
        return None


def make_possible() -> None:
    """Make every later ``import torchvision`` of this process work; calling it again has no effect."""
    if _Declaring not in sys.meta_path:
        sys.meta_path.insert(0, _Declaring)
