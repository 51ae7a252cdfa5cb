"""All figures of a run by the names that gates and certificate use.

Decides which measurement gives which figure. Does not judge any.
"""

from __future__ import annotations

import math
import platform

import numpy as np

from compressor import evaluation, parity, regression
from compressor.comparison import Comparison, Material
from compressor.forms import FLOAT_NAMES, Models
from compressor.measure import calibration_error
from compressor.recipe import TargetRecipe
from compressor.statistics import wilson
from compressor.workshop import Workshop

_TIMED_ROWS = 64


def figures_of(
    workshop: Workshop, target: TargetRecipe, material: Material, models: Models, compared: Comparison
) -> dict[str, float]:
    """Return every figure of ``target``; latency and memory only where this host is such a processor.

    Raises:
        MeasureError: If an artifact can't be read or run.
    """
    form, baseline = compared.form, models.baseline
    inspected = workshop.graph(form.candidate, form.onnx)
    numeric = compared.gate_set.numeric
    figures = dict(regression.figures(compared.gate_set)) if numeric else _accuracy_figures(compared)
    figures |= {
        "size_bytes": float(len(form.data)),
        "float_size_bytes": float(len(baseline.data)),
        "size_ratio": len(form.data) / len(baseline.data),
        "macs": float(inspected.macs),
        "float_macs": float(workshop.graph(baseline.candidate).macs),
        "int8_macs_ratio": inspected.int8_macs_ratio,
        "converting_nodes": float(inspected.converting),
    }
    figures |= _parity_figures(compared, target)
    if target.cpu == platform.machine():  # this host says nothing about another processor: the gate then fails
        rows = material.rows("gate").take(np.arange(min(_TIMED_ROWS, len(compared.gate_set.labels))))
        timed = workshop.timings({"float": baseline.candidate, "candidate": form.candidate}, rows)
        figures |= timed | {
            "latency_ratio": timed["latency_p50_ms"] / timed["float_latency_p50_ms"],
            "speed_up_ratio": timed["float_latency_p50_ms"] / timed["latency_p50_ms"],
        }
    return figures


def _parity_figures(compared: Comparison, target: TargetRecipe) -> dict[str, float]:
    float_name = FLOAT_NAMES[target.runtime]
    exported = parity.find(compared.parity, float_name, "torch")
    quantized = parity.find(compared.parity, float_name, target.name)
    figures = {"parity_max_abs": exported.max_abs} if exported else {}
    if quantized is None:
        return figures
    flips = {} if math.isnan(quantized.flip_ratio) else {"parity_flip_ratio": quantized.flip_ratio}
    return figures | {"parity_cosine": quantized.cosine} | flips


def _accuracy_figures(compared: Comparison) -> dict[str, float]:
    gate_set = compared.gate_set
    right = int((gate_set.candidate.classes == gate_set.labels).sum())
    low, high = wilson(right, len(gate_set.labels), 0.95)
    figures = {
        "n_gate": float(len(gate_set.labels)),
        "accuracy": right / len(gate_set.labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "float_accuracy": evaluation.accuracy(gate_set.float_model, gate_set.labels),
        "baseline_accuracy": evaluation.accuracy(gate_set.baseline, gate_set.labels),
        "calibration_error": calibration_error(gate_set.candidate.logits, gate_set.labels),
    }
    if compared.drifted is not None:
        drifted = compared.drifted
        figures |= {
            "n_drifted": float(len(drifted.labels)),
            "drifted_accuracy_before": evaluation.accuracy(drifted.baseline, drifted.labels),
            "drifted_accuracy": evaluation.accuracy(drifted.candidate, drifted.labels),
        }
    return figures
