"""Quantization-aware training, and weight changes before quantization: fake-quantized copies that share weights.

``graph`` finds the tensors that the int8 back-ends quantize and folds batch norms into weights, ``fake_quantize`` has
the grids, ``simulation`` builds the fake-quantized copy, ``training`` chooses where training starts and trains it,
``equalization`` and ``correction`` change weights without training. All import torch.
"""
