"""TFLite files: ranges, quantization, contract and figures. Needs the extra ``tinyfleet[tflite]``, but no torch."""
