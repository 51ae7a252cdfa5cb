"""From an exported ONNX file to a torch network, so that it has the steps and formats of a network of ours."""

MADE_WITH = ("torch", "numpy", "onnx", "onnxruntime")
"""The distributions whose versions decide the network."""
