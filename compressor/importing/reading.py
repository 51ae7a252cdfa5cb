"""An ONNX graph before it becomes a network: its nodes, the size of every value, and the values that are constant.

Sizes and constants are not inferred: onnxruntime runs the file at two batch sizes with every value as an output. A size
that differs grows with the batch; a value that no pixel reaches (weights behind a ``Cast``, sizes computed from
``Shape``) and that is the same both times is a constant. The values of the first run are what each step of the network
is compared with later. Nothing from the file is evaluated as code. Decides neither how an operator is translated nor
which are known.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from compressor.errors import ConversionError, OperatorError

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]
MAX_MODEL_BYTES = 512 * 1024 * 1024
MAX_NODES = 20_000
"""A network of 50 layers as an exporter writes it has 600; onnxruntime takes milliseconds for each node."""
_BATCHES = (2, 3)
_SEED = 20_261_130
_ERROR = 4
_SHOWN = 300
CHOOSING = frozenset({"NonMaxSuppression", "NonZero", "TopK"})
"""Operators by which a detector chooses boxes inside. No network, and no runtime but onnxruntime, has them."""
_SIZE_OPERATORS = frozenset({"Shape", "Size"})
_MIN_OPSET, _STANDARD = 7, ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Size:
    """A size of a value: ``count``, times the batch if it ``grows``."""

    count: int
    grows: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A value that no input reaches. ``axis``: along it ``value`` has one row, repeated for the batch; -1: nowhere."""

    value: Array
    axis: int = -1

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return bool(np.issubdtype(self.value.dtype, np.floating))


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator: its names, and its attributes as Python values (a tensor as an array, text as ``str``)."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """Operator and name, as errors write them."""
        return f"{self.operator} at {self.name!r}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class OnnxSource:
    """A parsed file. ``nodes`` in the order in which they run.

    ``input``: the name of its only one; ``outputs``: their names; ``opset``: of ONNX's own operators.
    ``weights``: its initializers. ``constants``: all values that no input reaches, initializers among them. ``sizes``:
    of every value. ``reached``: those that depend on pixels. ``example``: float32, (2, ...), the input of the run that
    gave ``values``; ``others``: input and values of a run of three rows. ``roots``: the initializers that a constant
    was computed from.
    """

    input: str
    outputs: tuple[str, ...]
    opset: int
    nodes: tuple[Node, ...]
    weights: Mapping[str, Array]
    constants: Mapping[str, Constant]
    sizes: Mapping[str, tuple[Size, ...]]
    reached: frozenset[str]
    example: Floats
    values: Mapping[str, Array]
    others: tuple[Floats, Mapping[str, Array]]
    roots: Mapping[str, frozenset[str]]

    def users(self) -> dict[str, list[Node]]:
        """Return the nodes that read each value."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return found

    def maker(self) -> dict[str, Node]:
        """Return the node that makes each value."""
        return {name: node for node in self.nodes for name in node.outputs}

    def with_nodes(self, nodes: Iterable[Node]) -> OnnxSource:
        """Return this file with other nodes."""
        return replace(self, nodes=tuple(nodes))


def read(data: bytes) -> OnnxSource:
    """Return the graph of an ONNX file with one float32 input whose sizes, the batch aside, are known.

    Raises:
        ConversionError: If it is too large, can't be read or run, holds an operator of another domain, has other inputs
            than one, or depends on the batch in a way that a network can't follow.
    """
    if len(data) > MAX_MODEL_BYTES:
        raise ConversionError(f"Expected an ONNX file of at most {MAX_MODEL_BYTES} bytes, got {len(data)}")
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
        weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    except Exception as error:  # protobuf, numpy and onnx raise their own classes
        message = f"Expected a complete ONNX file, got: {str(error)[:_SHOWN]}: export the model again"
        raise ConversionError(message) from error
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise ConversionError(f"Expected an ONNX graph of at most {MAX_NODES} nodes, got {len(graph.node)}")
    nodes = tuple(_nodes(graph.node))
    opset = next((item.version for item in model.opset_import if item.domain in _STANDARD), 0)
    if opset < _MIN_OPSET:
        raise ConversionError(f"Expected an opset of {_MIN_OPSET} or later, got {opset}: export the model again")
    first, sizes = _input(graph, weights)
    reached = _reached(nodes, first)
    outputs = tuple(item.name for item in graph.output)
    try:
        (more, others, wide), (example, values, narrow) = _runs(
            _exposed(model, first, nodes), first, sizes, reached, outputs
        )
        shapes = {name: _sizes(name, shape, wide[name]) for name, shape in narrow.items()}
    except ConversionError as error:
        chosen = next((node for node in nodes if node.operator in CHOOSING), None)
        if chosen is None:
            raise
        raise choice(chosen) from error
    constants = {name: Constant(value) for name, value in weights.items()}
    for name in (name for node in nodes for name in node.outputs if name and name not in reached):
        if (found := _constant(values[name], others[name])) is not None:
            constants[name] = found
    shapes = {name: tuple(Size(count) for count in value.shape) for name, value in weights.items()} | shapes
    return OnnxSource(
        input=first,
        outputs=outputs,
        opset=opset,
        nodes=nodes,
        weights=weights,
        constants=constants,
        sizes=shapes,
        reached=reached,
        example=example,
        values=values,
        others=(more, others),
        roots=_roots(nodes, weights),
    )


def choice(node: Node) -> OperatorError:
    """Return the error of a file that chooses boxes at ``node``."""
    message = f"Expected a network that gives all of its boxes, got {node.shown}, which chooses some of them"
    return OperatorError(
        f"{message}: export without that (of ultralytics nms=False and end2end=False), or leave the network steps out "
        "and take onnx targets"
    )


def _nodes(found: Sequence[Any]) -> Iterator[Node]:
    """Yield the nodes; one without a name is named after its place.

    Raises:
        ConversionError: If one is of another domain than ONNX's own.
    """
    for index, node in enumerate(found):
        name = node.name or f"{node.op_type}_{index}"
        if node.domain not in _STANDARD:
            message = f"Expected operators of ONNX itself, got {node.domain}.{node.op_type} at {name!r}"
            raise ConversionError(f"{message}: give the file as it was exported, before a runtime optimised it")
        attributes = {item.name: _attribute(item) for item in node.attribute}
        yield Node(
            operator=node.op_type,
            name=name,
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            attributes=attributes,
        )


def _attribute(item: Any) -> Any:  # noqa: ANN401 - any type that an attribute has
    value = onnx.helper.get_attribute_value(item)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _input(graph: Any, weights: Mapping[str, Array]) -> tuple[str, tuple[int, ...]]:  # noqa: ANN401 - onnx has no types
    """Return name and sizes, without the batch, of the only input.

    Raises:
        ConversionError: If there are others, it is not float32, or a size is open.
    """
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        got = ", ".join(value.name for value in inputs) or "none"
        raise ConversionError(f"Expected one input beside the weights, got {got}: fix the others by [model] constants")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        raise ConversionError(f"Expected a float32 input, got type {kind.elem_type} at {inputs[0].name!r}")
    sizes = tuple(int(dim.dim_value) for dim in kind.shape.dim[1:])
    if not kind.shape.dim or min(sizes, default=1) < 1:
        message = f"Expected known sizes of the input {inputs[0].name!r}, the batch aside, got {(-1, *sizes)}"
        raise ConversionError(f"{message}: set width and height in [data], or export with fixed sizes")
    return inputs[0].name, sizes


def _reached(nodes: Iterable[Node], first: str) -> frozenset[str]:
    """Return the values that depend on the input's pixels, not only on its sizes."""
    reached = {first}
    for node in nodes:
        inside = any(isinstance(value, onnx.GraphProto) for value in node.attributes.values())
        if node.operator not in _SIZE_OPERATORS and (inside or reached.intersection(node.inputs)):
            reached.update(name for name in node.outputs if name)
    return frozenset(reached)


def _exposed(model: Any, first: str, nodes: Iterable[Node]) -> bytes:  # noqa: ANN401 - onnx has no types
    """Return the file with an open batch and every value as an output."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for value in copied.graph.input:
        if value.name == first:
            value.type.tensor_type.shape.dim[0].Clear()
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del copied.graph.value_info[:]
    del copied.graph.output[:]
    for name in dict.fromkeys(name for node in nodes for name in node.outputs if name):
        copied.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return bytes(copied.SerializeToString())


_Values: TypeAlias = "tuple[Floats, dict[str, Array], dict[str, tuple[int, ...]]]"


def _runs(
    data: bytes, first: str, sizes: Sequence[int], reached: frozenset[str], outputs: Sequence[str]
) -> tuple[_Values, _Values]:
    """Return input, values and sizes for a batch of three and of two; of the first only outputs and constants are kept.

    Raises:
        ConversionError: If onnxruntime rejects the file, or it does not take every batch.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415 - telemetry must be off before the import

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, _ERROR
    rng = np.random.default_rng(_SEED)
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        more = rng.random((_BATCHES[1], *sizes), np.float32)
        others, wide = _run(session, names, first, more)
        others = {name: value for name, value in others.items() if name not in reached or name in outputs}
        example = rng.random((_BATCHES[0], *sizes), np.float32)
        return (more, others, wide), (example, *_run(session, names, first, example))
    except ConversionError:
        raise
    except Exception as error:  # onnxruntime raises many unrelated classes
        message = f"Expected an ONNX file that onnxruntime runs with 2 and 3 rows, got: {str(error)[:_SHOWN]}"
        raise ConversionError(f"{message}: export it with an open batch (dynamic_axes)") from error


def _run(
    session: Any,  # noqa: ANN401 - onnxruntime has no types
    names: Sequence[str], first: str, rows: Floats,
) -> tuple[dict[str, Array], dict[str, tuple[int, ...]]]:  # fmt: skip
    """Return all values for ``rows``, and their sizes.

    Raises:
        ConversionError: If one is no tensor.
    """
    values = {first: rows, **dict(zip(names, session.run(None, {first: rows}), strict=True))}
    odd = sorted(name for name, value in values.items() if not isinstance(value, np.ndarray))
    if odd:
        raise ConversionError(f"Expected tensors alone, got a sequence or map as {odd[0]!r}: export without it")
    return values, {name: value.shape for name, value in values.items()}


def _constant(value: Array, other: Array) -> Constant | None:
    """Return the constant behind a value at a batch of two and of three; None if there is none.

    It may be repeated for the batch, as a class token is.
    """
    if value.shape == other.shape:
        same = np.array_equal(value, other, equal_nan=value.dtype.kind == "f")
        return Constant(value) if same else None
    if value.ndim != other.ndim:
        return None
    apart = [axis for axis in range(value.ndim) if value.shape[axis] != other.shape[axis]]
    if len(apart) != 1 or (value.shape[apart[0]], other.shape[apart[0]]) != _BATCHES:
        return None
    row = value.take([0], axis=apart[0])
    return Constant(row, apart[0]) if np.all(value == row) and np.all(other == row) else None


def _sizes(name: str, shape: Sequence[int], other: Sequence[int]) -> tuple[Size, ...]:
    """Return the sizes of a value of these shapes at a batch of two and of three.

    Raises:
        ConversionError: If one grows otherwise than in proportion to the batch.
    """
    two, three = _BATCHES
    if len(shape) != len(other) or any(a != b and a * three != b * two for a, b in zip(shape, other, strict=False)):
        message = f"Expected sizes in proportion to the batch, got {tuple(shape)} and {tuple(other)} for {two} and"
        raise ConversionError(f"{message} {three} rows at {name!r}: export the model in evaluation mode")
    return tuple(Size(a) if a == b else Size(a // two, grows=True) for a, b in zip(shape, other, strict=True))


def _roots(nodes: Iterable[Node], weights: Mapping[str, Array]) -> dict[str, frozenset[str]]:
    """Return the initializers that each value which needs no input was computed from."""
    roots = {name: frozenset({name}) for name in weights}
    for node in nodes:
        if all(not name or name in roots for name in node.inputs):
            made = frozenset[str]().union(*(roots[name] for name in node.inputs if name))
            roots |= {name: made for name in node.outputs if name}
    return roots
