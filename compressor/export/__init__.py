"""Exporters: from a trained network to the file that a runtime reads."""

OPSET = 17
"""Of exported ONNX files; here, because the manifest states it and an exporter loads torch."""

EMBEDDING = "embedding"
"""The output beside the answer, for distillation and drift: its noise decides nothing."""
