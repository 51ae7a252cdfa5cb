"""Quantization-aware training and rescue before quantization: fake-quantized copies that share the network's weights.

``graph`` says which tensors the int8 back-ends quantize, ``folding`` puts batch norms into weights, ``fake_quantize``
has the grids, ``simulation`` builds the fake-quantized copy, ``preparation`` chooses where training starts,
``training`` trains it, ``equalization`` and ``correction`` change weights without training. All of it imports torch.
"""
