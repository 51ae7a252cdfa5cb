"""Which networks of the folder give classes, boxes or pictures: steps of classifiers are tested on the first."""

from __future__ import annotations

from compressor import networks

DETECTORS = frozenset({"centre_net"})
DECODED = DETECTORS | {"auto_encoder", "window_forecast"}
"""Whose outputs are for a decoder."""
CLASSIFIERS = tuple(name for name in networks.networks() if name not in DECODED)
