"""Which networks of the folder give classes, and which boxes: steps of classifiers are tested on the former."""

from __future__ import annotations

from compressor import networks

DETECTORS = frozenset({"centre_net"})
CLASSIFIERS = tuple(name for name in networks.networks() if name not in DETECTORS)
