"""The report of a run: one self-contained HTML file, the verdict as text first, then pictures.

Decides how results are presented; computes nothing that a gate uses.
"""

from compressor.report.contents import Bar, Bars, Changed, Changes, Drawings, ErrorBar, Layers, Picture, Shown, Step
from compressor.report.page import render

__all__ = ["Bar", "Bars", "Changed", "Changes", "Drawings", "ErrorBar", "Layers", "Picture", "Shown", "Step", "render"]
