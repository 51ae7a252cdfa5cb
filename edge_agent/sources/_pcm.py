"""Samples of 16 bits out of bytes that are raw PCM or WAV, as they arrive: a WAV's header is read, never heard.

Decides what is sound: bytes that begin with a header of a WAV are read by it, one WAV after another; other containers
are refused by their first bytes; everything else is raw PCM of the stated form. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edge_agent.streams.wav_header import PcmForm, WavHead, wav_head

_MAGIC_BYTES = 12
_BYTE_OF_8 = bytes((level - 128) & 0xFF for level in range(256))
_OTHERS = {
    b"OggS": "Ogg", b"fLaC": "FLAC", b"ID3": "MP3", b"FORM": "AIFF", b".snd": "AU", b"RIFX": "RIFX", b"RF64": "RF64",
    b"caff": "CAF", b"\x1aE\xdf\xa3": "Matroska",
}  # fmt: skip


def other_container(data: bytes) -> str:
    """Return the name of the container that begins with ``data`` and is neither WAV nor PCM; "" if it is none."""
    if data[4:8] == b"ftyp":
        return "MP4"
    return next((name for magic, name in _OTHERS.items() if data.startswith(magic)), "")


class _Arriving:
    """Bytes that arrive in chunks; ``held``: what came and was not used."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self.held = chunks, b""

    def more(self) -> bool:
        """Wait for more; return False at the end."""
        data = next(self._chunks, None)
        self.held += data or b""
        return data is not None

    def taken(self, size: int | None) -> Iterator[bytes]:
        """Yield the next ``size`` bytes as they arrive; None: all."""
        while size is None or size > 0:
            if not self.held and not self.more():
                return
            part = self.held[:size]
            self.held = self.held[len(part) :]
            size = None if size is None else size - len(part)
            yield part


def sounds_in(
    chunks: Iterator[bytes], raw: Callable[[], PcmForm], check: Callable[[PcmForm], str], refuse: Callable[[str], None]
) -> Iterator[tuple[PcmForm, bytes, bool]]:
    """Yield the form of samples, the samples (16 bits), and whether another sound begins with them.

    Args:
        chunks: The bytes of one connection.
        raw: Returns the form of bytes that have no header.
        check: Returns why sound of a header's form is not used; "" if it is.
        refuse: Gets why sound is passed over.
    """
    arriving = _Arriving(chunks)
    while arriving.held or arriving.more():
        try:
            head = _head_in(arriving)
            reason = other_container(arriving.held) if head is None else check(head.form)
        except ValueError as error:
            head, reason = None, f"a WAV with {error}"
        if reason:
            refuse(reason)
        for _ in arriving.taken(head.start if head else 0):
            pass
        begins = True
        for part in arriving.taken(head.size if head else None):
            if not reason:
                form = head.form if head else raw()
                yield form, part if form.width > 1 else _widened(part), begins
                begins = False
        for _ in arriving.taken(head.rest if head else 0):
            pass


def _head_in(arriving: _Arriving) -> WavHead | None:
    """Return the header of the WAV that begins here; None if none does, or it has no end.

    Raises:
        ValueError: If it is no PCM of 8 or 16 bits.
    """
    while True:
        held = arriving.held
        if held[:4] != b"RIFF"[: len(held)] or held[8:_MAGIC_BYTES] != b"WAVE"[: max(0, len(held) - 8)]:
            return None
        head = wav_head(held)
        if head is not None or not arriving.more():
            return head


def _widened(samples: bytes) -> bytes:
    """Return unsigned samples of 8 bits as signed ones of 16."""
    wide = bytearray(2 * len(samples))
    wide[1::2] = samples.translate(_BYTE_OF_8)
    return bytes(wide)
