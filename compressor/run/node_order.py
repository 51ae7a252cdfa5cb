"""The order of an ONNX file's nodes, which the standard asks for and not every converter keeps. Pure."""

from __future__ import annotations

import onnx


def in_order(data: bytes) -> bytes:
    """Return ONNX ``data`` with every node after those it reads from; as it is where it is no such file, or in order.

    onnxruntime runs files in any order, and its float16 converter leaves them so.
    """
    try:
        model = onnx.load_from_string(data)
    except Exception:  # noqa: BLE001 - protobuf raises unrelated classes; what reads the file next says what it is
        return data
    graph = model.graph
    known = {"", *(item.name for item in [*graph.initializer, *graph.input])}
    ordered, waiting = [], list(graph.node)
    while waiting:
        ready = next((i for i, node in enumerate(waiting) if known.issuperset(node.input)), None)
        if ready is None:
            return data  # a ring, or an input that nobody makes
        ordered.append(waiting.pop(ready))
        known.update(ordered[-1].output)
    if all(one is other for one, other in zip(ordered, graph.node, strict=True)):
        return data
    del graph.node[:]
    graph.node.extend(ordered)
    sorted_data: bytes = model.SerializeToString()
    return sorted_data
