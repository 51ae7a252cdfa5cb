"""The keys of ``[data]`` that each data set reads; an unread key is an error, because the user expects an effect.

Each data set of this folder lists them in ``READS``; all other keys apply to every data set (sizes, colour, mean,
shares). A person's own data set may read any.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from compressor.errors import DataError
from compressor.recipe.model import DataRecipe
from wire.settings import is_given

FLOOR = 'label = "floor"'
KEYS = ("path", "slices", "split", "allow_corrupt", "orientation", "decode", "front_end", "options", FLOOR)
"""Keys that not every data set reads. Of ``label`` only ``floor``: ``exact`` and ``number`` apply to all."""


def check_read(data: DataRecipe, known: tuple[str, ...]) -> None:
    """Check that ``data`` sets no key that its data set, one of ``known``, does not read.

    Raises:
        DataError: If it does; the key, the data set and those that read the key are named.
    """
    if data.dataset not in known:
        return
    unread = [key for key, given in _given(data).items() if given and key not in reads(data.dataset)]
    if not unread:
        return
    key = unread[0]
    others = ", ".join(name for name in known if key in reads(name))
    value = "" if key == FLOOR else f" = {getattr(data, key)!r}"
    message = f"Expected no {key}{value} in [data] with dataset = {data.dataset!r}, which does not read it"
    raise DataError(f"{message}: leave it out, or name a data set that does ({others})")


def check_options(data: DataRecipe, unread: tuple[str, ...], why: str) -> None:
    """Check that ``[data] options`` contain none of ``unread``; ``why``: the kind of data, for the message.

    Raises:
        DataError: If they do.
    """
    found = next((name for name in unread if name in data.options), None)
    if found is not None:
        message = f"Expected no {found!r} in [data] options with {why}, got {data.options[found]:g}"
        raise DataError(f"{message}: nothing would read it; leave it out")


def reads(dataset: str) -> frozenset[str]:
    """Return the members of ``KEYS`` that the data set ``dataset`` of this folder reads."""
    found: frozenset[str] = importlib.import_module(f"compressor.data.{dataset}").READS
    return found


def _given(data: DataRecipe) -> Mapping[str, bool]:
    """Return which of ``KEYS`` differ from their defaults."""
    return {key: data.label == "floor" if key == FLOOR else is_given(data, key) for key in KEYS}
