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
def own_mode(*, flushes: bool) -> Iterator[None]:
    """Restore the calling thread's mode after the block; ``flushes``: in it, denormal numbers are treated as zero."""
    if _PLACE is None:
        yield
        return
    before = ctypes.create_string_buffer(_BYTES)
    _LIBRARY.fegetenv(before)
    if flushes:
        mode, (offset, bits) = ctypes.create_string_buffer(before.raw, _BYTES), _PLACE
        word = ctypes.c_uint32.from_buffer(mode, offset)
        word.value |= bits
        _LIBRARY.fesetenv(mode)
    try:
        yield
    finally:
        _LIBRARY.fesetenv(before)
