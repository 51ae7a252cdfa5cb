"""Measurements of a model: predictions, latency, parity, layers, graph, saliency."""
