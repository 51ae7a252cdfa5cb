"""What is measured of a model: predictions, latency, parity, layers, graph, saliency."""
