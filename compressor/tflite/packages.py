"""The packages of the extra ``tflite``, imported on first use; the error for a missing one says how to install it.

Decides nothing about models.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from compressor.errors import PluginError

_OUT, _ERR = 1, 2


def required(module: str) -> Any:  # noqa: ANN401 - third-party modules without types
    """Return the module ``module``.

    Raises:
        PluginError: If it, or a package that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        message = f"Expected the package {error.name!r} for TFLite, got none: pip install 'tinyfleet[tflite]'"
        raise PluginError(message) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Discard standard output and error, including what C++ code writes; suppress warnings and log only errors.

    Affects the whole process: other threads are silenced too while the block runs.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept, root = [os.dup(_OUT), os.dup(_ERR)], logging.getLogger()
    level, nowhere = root.level, os.open(os.devnull, os.O_WRONLY)
    try:
        root.setLevel(logging.ERROR)
        os.dup2(nowhere, _OUT)
        os.dup2(nowhere, _ERR)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for descriptor, original in zip((_OUT, _ERR), kept, strict=True):
            os.dup2(original, descriptor)
        for descriptor in (*kept, nowhere):
            os.close(descriptor)
        root.setLevel(level)
