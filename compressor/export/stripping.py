"""Removes leftovers of the export from an ONNX file, so that equal models give equal bytes. Needs no torch."""

from __future__ import annotations

import onnx

from compressor.clean.onnx_graph import graphs


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` without leftovers of the export: producer, notes, shapes, unused operator sets."""
    model.producer_name, model.producer_version, model.doc_string = "tinyfleet", "", ""
    del model.metadata_props[:]
    model.graph.doc_string, model.graph.name = "", "graph"
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    used = {node.domain for graph in graphs(model.graph) for node in graph.node} | {""}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(sorted(opsets, key=lambda opset: opset.domain))
    return model
