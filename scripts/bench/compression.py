#!/usr/bin/env python3
"""Prints cost and gain of compression beside its peers, on the same model and data, one thread, in one run.

``compression.py [--quick] [--cases resnet8,resnet8/meter,...] [--out DIR] [--peers DIR] [--data ZIP] [--json FILE]``:
scikit-learn's digits through a camera, and digits of utility meters if ``--data`` or ``TINYFLEET_DATA`` names them.
Ours is a recipe (prune, distil, QAT, int8) that must pass a 1-point gate at 95 % on rows no step has seen; the others
are fp32, onnxruntime's ``quantize_static``, ai-edge-quantizer, and NNCF and Olive if ``--peers`` names the folder from
``peers/setup``. Speed is that of fp32 onnxruntime over the contender's, batch size 1, in turns. ``quantize``: seconds
of the quantization only, run again, and the peak memory of a process that does it; ``run``: of one that loads and runs
the model. ``--out`` keeps every step: a second run trains nothing. ``--quick``: rough, without targets.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

if __name__ == "__main__":
    # Imported only here: the processes whose memory is measured import this file again, and must not grow.
    from scripts.bench.beside import main

    sys.exit(main(__doc__))
