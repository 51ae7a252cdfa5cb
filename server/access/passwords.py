"""Hashes passwords of people by argon2id, and compares them in the same time for a name that nobody has.

A person chooses a password that can be guessed, so each guess has to be dear: unlike the random secrets of devices and
tokens. One hash is computed at a time, so that a flood of logins costs one processor and the memory of one hash.

Source: RFC 9106, section 4: the second recommended set (64 MiB, 3 passes, 4 lanes) where memory is scarce.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from server.errors import PasswordRefusedError, PasswordsUnavailableError

_LANES, _SALT_BYTES, _HASH_BYTES = 4, 16, 32
MIN_LETTERS, MAX_LETTERS = 12, 1_000


@dataclass(eq=False, slots=True, kw_only=True)
class Passwords:
    """Makes and checks hashes of passwords. ``memory_kib`` and ``passes``: the cost of one."""

    memory_kib: int = 65_536
    passes: int = 3
    _nobodys: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hashed(self, password: str) -> str:
        """Return the hash of a new ``password``.

        Raises:
            PasswordRefusedError: If it is too short, or too long.
            PasswordsUnavailableError: If argon2-cffi is not installed.
        """
        if not MIN_LETTERS <= len(password) <= MAX_LETTERS:
            message = f"Expected a password of {MIN_LETTERS} to {MAX_LETTERS} letters, got {len(password)}"
            raise PasswordRefusedError(f"{message}: some words that don't belong together are easy to keep")
        with self._lock:
            return self._hash(password)

    def fits(self, password: str, stored: str) -> bool:
        """Return whether ``password`` is the one of the hash ``stored``.

        With ``stored`` "", of a name that nobody has, it takes the same time and is false.

        Raises:
            PasswordsUnavailableError: If argon2-cffi is not installed.
        """
        argon2 = _library()
        with self._lock:
            if not self._nobodys:
                self._nobodys = self._hash("a password that nobody has")
            try:
                argon2.PasswordHasher().verify(stored or self._nobodys, password[:MAX_LETTERS])
            except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError, UnicodeEncodeError):
                return False
        return bool(stored)

    def _hash(self, password: str) -> str:
        hasher = _library().PasswordHasher(
            time_cost=self.passes, memory_cost=self.memory_kib, parallelism=_LANES, hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
        )  # fmt: skip
        try:
            return str(hasher.hash(password))
        except UnicodeEncodeError as error:
            raise PasswordRefusedError("Expected a password in Unicode, got a lone surrogate") from error


def _library() -> Any:  # noqa: ANN401 - a module, loaded late
    try:
        import argon2  # noqa: PLC0415 - a server without users doesn't need it
    except ImportError as error:
        message = f"Expected argon2-cffi for passwords of people, got: {error}: pip install 'tinyfleet[server]'"
        raise PasswordsUnavailableError(message) from error
    return argon2
