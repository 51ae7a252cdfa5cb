"""Ranges of all tensors of a float TFLite model from calibration data, in memory that does not grow with the data.

Uses the same running summaries as the ONNX calibrator, so that both formats get the same ranges. Decides ranges only;
the quantizer chooses scales and zero points.
"""

from __future__ import annotations

from collections.abc import Callable

from compressor.errors import MeasureError, QuantizeError
from compressor.quantize._calibrator import Summary
from compressor.quantize._running import Batches
from compressor.tflite import flatbuffer
from compressor.tflite.packages import required
from compressor.tflite.recording import Recorder


def collect_ranges(
    model: bytes, batches: Batches, *, summary: Callable[[], Summary] = Summary
) -> dict[str, tuple[float, float]]:
    """Return (low, high) of the input and of every float tensor that an operator of ``model`` outputs, by name.

    Args:
        model: Float TFLite with one graph and one input.
        batches: Restarts the calibration data: float32, laid out as the model's input, (N, H, W, C) for images.
        summary: Creates the running summary of one tensor; the default keeps the true minimum and maximum.

    Raises:
        QuantizeError: If the model can't be read or does not run on the data, or there is no data.
        PluginError: If the extra ``tflite`` is not installed.
    """
    tensors = activations(model)
    summaries = {name: summary() for name in tensors.values()}
    recorder = None
    try:
        for batch in (one for one in batches() if len(one)):
            recorder = recorder or Recorder(model, list(tensors), batch)
            for values in recorder.run(batch):
                for (name, one), value in zip(summaries.items(), values, strict=True):
                    one.add(value, name)
    except MeasureError as error:
        message = f"Expected the model to run on the calibration data, got: {error}"
        raise QuantizeError(message) from error
    return {name: one.range() for name, one in summaries.items()}


def activations(model: bytes) -> dict[int, str]:
    """Return index -> name of the float tensors of ``model`` that are not constants, in the order of computation.

    Raises:
        QuantizeError: If ``model`` is not a TFLite file of one graph and one input.
        PluginError: If the extra ``tflite`` is not installed.
    """
    tree = flatbuffer.read(model, QuantizeError)
    if len(tree.subgraphs) != 1 or len(tree.subgraphs[0].inputs) != 1:
        inputs = [len(graph.inputs) for graph in tree.subgraphs]
        raise QuantizeError(f"Expected one graph with one input, got graphs with {inputs} inputs: split the model")
    graph = tree.subgraphs[0]
    float32 = required("ai_edge_litert.schema_py_generated").TensorType.FLOAT32
    made = [*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)]
    return {int(i): graph.tensors[i].name.decode() for i in made if graph.tensors[i].type == float32}
