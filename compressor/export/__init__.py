"""Exporters: from a trained network to the file that a runtime reads."""
