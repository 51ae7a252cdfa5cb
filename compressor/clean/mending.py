"""The mends of step ``clean``, one after the other, each compared with the file before it.

1. A mend is a row of ``MENDS``: its name, its function, whether it leaves every number alone, and whether only steps
   that compress need it. The function changes the model in place and returns one line on what it did; an empty line:
   it does not apply.
2. After every other mend the file is run on the same rows as before it, at one row and at three. If an answer differs
   by more than rounding, or the file does not run, it stays as it was before the mend, and the line says so.
3. A file to which no mend applies stays as it is, byte for byte.

Does not decide which files are accepted: what can't be mended is left for the reader that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx

from compressor.clean import constants, folding, inputs, linear_models, names, opset, sizes, wrapping
from compressor.clean._answers import ROUNDING, FileAnswers, Unrunnable, answers, apart
from compressor.clean.given import PARITY, Given
from compressor.clean.onnx_graph import copy_of
from compressor.errors import CompressorError

_HALF = 2.0**-7
"""Of the largest answer: float16 has 11 bits, and a runtime may round after every node."""
_ROWS = 3
_LEAST = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Mend:
    """``name``: of the mend, in texts. ``apply``: see the module. ``exact``: no number is computed in another way.

    ``compressing``: it is for quantizers alone. ``allowed``: the difference of answers, as a share of the largest.
    """

    name: str
    apply: Callable[[onnx.ModelProto, Given], str]
    exact: bool = False
    compressing: bool = False
    allowed: float = ROUNDING


NAMES = Mend(name="names", apply=names.name_nodes, exact=True)
MENDS = (
    Mend(name="inputs", apply=names.list_inputs, exact=True),
    Mend(name="order", apply=names.sort_nodes, exact=True),
    NAMES,
    Mend(name="constants", apply=inputs.set_inputs, exact=True),
    Mend(name="sizes", apply=sizes.set_sizes, exact=True),
    Mend(name="tables", apply=linear_models.plain_outputs, exact=True),
    Mend(name="linear models", apply=linear_models.standard_operators),
    Mend(name="one row", apply=sizes.one_row, exact=True),
    Mend(name="float16", apply=wrapping.widen, compressing=True, allowed=_HALF),
    Mend(name="layout", apply=wrapping.feed_nchw),
    Mend(name="flat input", apply=wrapping.flatten_first),
    Mend(name="pixels", apply=wrapping.feed_pixels),
    Mend(name="input type", apply=wrapping.feed_half, allowed=_HALF),
    Mend(name="output type", apply=wrapping.answer_in_float, allowed=_HALF),
    Mend(name="flat outputs", apply=wrapping.flatten_answers),
    Mend(name="constant nodes", apply=folding.inline_constants, compressing=True),
    Mend(name="branches and shapes", apply=folding.fold, compressing=True),
    Mend(name="opset", apply=opset.raise_opset, compressing=True),
    Mend(name="constants of the new opset", apply=folding.inline_constants, compressing=True),
    Mend(name="batch", apply=sizes.open_batch, compressing=True),
    Mend(name="folding", apply=folding.fold, compressing=True),
    Mend(name="biases", apply=constants.flatten_biases, compressing=True),
    Mend(name="masks", apply=constants.cut_masks, compressing=True),
    Mend(name="masks, less", apply=constants.cut_masks_less, compressing=True),
    Mend(name="names after it", apply=names.name_nodes, exact=True),
)
"""In this order: what a session needs, what is fed, what is folded, what quantizers need."""


def clean(data: bytes, given: Given) -> tuple[bytes, dict[str, str]]:
    """Return the ONNX file ``data`` mended, and a line for each mend that applied or was undone, by its name, in order.

    The last line is the difference of the answers before and after, that of mends from float16 apart. A file that is
    no ONNX file stays as it is.

    Raises:
        ModelSignatureError: If ``given.constants`` does not fit its inputs.
    """
    try:
        model = onnx.load_from_string(data)
    except Exception:  # noqa: BLE001 - protobuf raises unrelated classes; the next reader reports the error
        return data, {}
    given = replace(given, rows=given.rows[:_ROWS])
    notes: dict[str, str] = {}
    before: FileAnswers | None = None
    changed, compared = False, ""
    halves: tuple[str, ...] = ()
    for mend in MENDS:
        if mend.compressing and not given.compressed:
            continue
        mended = copy_of(model)
        try:
            said = mend.apply(mended, given)
            if said and not mend.exact:
                before = before or _answered(model, given)
                after = answers(mended, given)
                before = before or after
                compared = _compared(mend, before, after, len(given.rows))
                if mend.allowed > ROUNDING:  # what follows computes in float32, and is compared with that
                    before, halves = after, (*halves, compared)
        except CompressorError:
            raise
        except Exception as error:  # noqa: BLE001 - onnx and numpy raise unrelated classes; a reader names a damaged file
            notes[mend.name] = f"left as it is: {str(error)[:200]}"
            continue
        if said:
            model, notes[mend.name], changed = mended, said, True
    if compared:
        notes[PARITY] = "; then ".join(dict.fromkeys((*halves, compared)))
    return (model.SerializeToString(deterministic=True) if changed else data), notes


def _answered(model: onnx.ModelProto, given: Given) -> FileAnswers | None:
    """Return the answers of ``model``; None if onnxruntime does not run it as it is."""
    try:
        return answers(model, given)
    except Unrunnable:
        return None


def _compared(mend: Mend, before: FileAnswers, after: FileAnswers, rows: int) -> str:
    """Return how far the answers are apart, in a sentence.

    Raises:
        Unrunnable: If they differ by more than rounding.
    """
    difference, scale = apart(before, after)
    if not difference <= mend.allowed * scale + _LEAST:
        raise Unrunnable(f"the answers would differ by {difference:.3g} of {scale:.3g}")
    return f"largest difference {difference:.2g} of {scale:.3g}, on {rows} rows"
