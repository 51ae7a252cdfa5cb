"""Exporters: from a trained network to the file a runtime reads."""
