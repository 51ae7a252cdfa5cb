"""The report of a run: one HTML file that opens without a network, the verdict in words first, then pictures.

Decides how results are shown; computes nothing that a gate uses.
"""

from compressor.report.contents import Bar, Bars, Changed, Changes, ErrorBar, Layers, Picture, Shown, Step
from compressor.report.page import render

__all__ = ["Bar", "Bars", "Changed", "Changes", "ErrorBar", "Layers", "Picture", "Shown", "Step", "render"]
