"""The floating point mode of a thread: whether its processor treats denormal numbers as zero.

onnxruntime sets that mode for the first session of a process alone, by that session's options, in the thread that makes
it, and leaves it so: a later session would not have the mode, and all arithmetic of the caller's program would
(``5e-324 == 0.0``). Here every session has it while it works, and the caller never; on another
processor or C library than those below it is as onnxruntime leaves it.
Sources: C11, 7.6.4 (``fegetenv``, ``fesetenv``); glibc ``fenv.h`` (``fenv_t``); Intel SDM 1, 10.2.3 (MXCSR: FTZ, DAZ);
Arm ARM, FPCR.FZ; onnxruntime, ``InferenceSession::ConstructorCommon``.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_BYTES = 64  # fenv_t: 32 bytes on x86-64, 8 on AArch64
_FLUSHING = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}  # where in fenv_t, and the bits
_PLACE = _FLUSHING.get(platform.machine()) if platform.libc_ver()[0] == "glibc" else None
_LIBRARY = ctypes.CDLL(None)  # Python itself is linked with the library of mathematics


@contextmanager
def restored() -> Iterator[None]:
    """Give the calling thread the mode back that it has now, whatever the block does to it."""
    if _PLACE is None:
        yield
        return
    before = _current()
    try:
        yield
    finally:
        _LIBRARY.fesetenv(before)


@contextmanager
def without_denormals() -> Iterator[None]:
    """Treat denormal numbers as zero in the block, in the calling thread."""
    with restored():
        if _PLACE is not None:
            offset, bits = _PLACE
            mode = _current()
            word = ctypes.c_uint32.from_buffer(mode, offset)
            word.value |= bits
            _LIBRARY.fesetenv(mode)
        yield


def _current() -> ctypes.Array[ctypes.c_char]:
    mode = ctypes.create_string_buffer(_BYTES)
    _LIBRARY.fegetenv(mode)
    return mode
