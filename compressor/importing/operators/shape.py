"""Operators that move, select and join values.

A reshape never carries the batch as a number: the size that grows with it is -1. Where a reshape merges or splits axes
it becomes a flatten or an unflatten, which pruning can follow.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from compressor.importing.network import RowCount, Slot, Value
from compressor.importing.operation import Operand, Operation, Table, expanded
from compressor.importing.reading import Size

_END = 2**31
"""Ends of slices at or beyond this are "to the end": exporters write the largest integer."""


def reshape(op: Operation) -> Value:
    """Reshape, and Flatten: by the sizes that onnxruntime found."""
    given, wanted, x = op.sizes(), op.made_sizes(), op.tensor()
    if given == wanted:
        return x
    front = next((at for at, (a, b) in enumerate(zip(given, wanted, strict=False)) if a != b), None)
    front = min(len(given), len(wanted)) if front is None else front
    back = 0
    while back < min(len(given), len(wanted)) - front and given[-1 - back] == wanted[-1 - back]:
        back += 1
    if len(given) - back == front or len(wanted) - back == front:  # only sizes of 1 come or go: join them to the last
        front = max(front - 1, 0)
    old, new = given[front : len(given) - back], wanted[front : len(wanted) - back]
    if len(new) == 1 and len(old) > 1:
        return op.run(torch.flatten, x, front, front + len(old) - 1)
    if len(old) == 1 and len(new) > 1:
        return op.run(torch.unflatten, x, front, _with_one_open(op, new))
    return op.run(torch.reshape, x, _with_one_open(op, wanted))


def _with_one_open(op: Operation, sizes: Sequence[Size]) -> list[int]:
    """Return ``sizes`` with -1 for the one that grows with the batch; if none does, for the last that is not 1.

    Raises:
        OperatorError: If several grow.
    """
    growing = [axis for axis, size in enumerate(sizes) if size.grows]
    if len(growing) > 1:
        raise op.refused("two sizes that grow with the batch")
    numbers = [size.count for size in sizes]
    if numbers and (growing or 0 not in numbers):
        wide = [axis for axis, number in enumerate(numbers) if number != 1] or [-1]
        numbers[growing[0] if growing else wide[-1]] = -1
    return numbers


def transpose(op: Operation) -> Value:
    """Transpose."""
    order = op.attribute("perm", list(reversed(range(len(op.sizes())))))
    return op.run(torch.permute, op.tensor(), [int(axis) for axis in order])


def squeeze(op: Operation) -> Value:
    """Squeeze: the named axes, or all of size 1 that the batch does not set."""
    axes, rank, x = op.integers(1, "axes"), len(op.sizes()), op.tensor()
    if axes is None:
        axes = [axis for axis, size in enumerate(op.sizes()) if size == Size(1)]
    for axis in sorted((axis % rank for axis in axes), reverse=True):
        x = op.run(torch.squeeze, x, axis)
    return x


def unsqueeze(op: Operation) -> Value:
    """Unsqueeze."""
    axes, rank, x = op.integers(1, "axes") or [], len(op.made_sizes()), op.tensor()
    for axis in sorted(axis % rank for axis in axes):
        x = op.run(torch.unsqueeze, x, axis)
    return x


def concat(op: Operation) -> Value:
    """Concat."""
    given = [op.tensor(index) for index in range(len(op.node.inputs))]
    return op.run(torch.cat, given, op.axis())


def split(op: Operation) -> list[Slot]:
    """Split: equal parts as torch's chunk, others by their sizes.

    Raises:
        OperatorError: If it splits the batch.
    """
    axis, parts = op.axis(), len(op.node.outputs)
    sizes = [op.made_sizes(index)[axis] for index in range(parts)]
    if sizes[0].grows:
        raise op.refused("a split of the batch")
    counts = [size.count for size in sizes]
    if len(set(counts)) == 1:
        made = op.run(torch.chunk, op.tensor(), parts, axis)
    else:
        made = op.run(torch.split, op.tensor(), counts, axis)
    return [op.run(operator.getitem, made, index) for index in range(parts)]


def slice_(op: Operation) -> Value:
    """Slice, forwards or the whole axis backwards.

    Raises:
        OperatorError: If it goes backwards over a part of an axis.
    """
    starts, ends = op.integers(1, "starts") or [], op.integers(2, "ends") or []
    axes, steps = op.integers(3, "axes") or list(range(len(starts))), op.integers(4) or [1] * len(starts)
    sizes, x = op.sizes(), op.tensor()
    parts: list[slice] = [slice(None)] * len(sizes)
    backwards = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = axis % len(sizes)
        size = sizes[place]
        if step < 0:
            whole = start in {-1, size.count - 1} or start >= _END
            if step != -1 or not whole or (end > -size.count - 1 and end > -_END):
                raise op.refused(f"step {step} from {start} to {end}")
            backwards.append(place)
            continue
        first = start if size.grows or start >= 0 else max(start + size.count, 0)
        parts[place] = slice(first or None, _end(end, size), None if step == 1 else step)
    if any(part != slice(None) for part in parts):
        x = op.run(operator.getitem, x, tuple(parts))
    return op.run(torch.flip, x, backwards) if backwards else x


def _end(end: int, size: Size) -> int | None:
    """Return where a slice ends, counted from the front; None for the end of the axis."""
    if end >= _END or (not size.grows and end >= size.count):
        return None
    return end if size.grows or end >= 0 else max(end + size.count, 0)


def gather(op: Operation) -> Value:
    """Gather: one index, a run of indices, any others; of a constant matrix by computed indices, an embedding.

    Raises:
        OperatorError: If the indices are computed, or have several axes.
    """
    axis, constant = op.axis(), op.constant(1)
    if constant is None:
        if op.constant(0) is None or axis or len(op.sizes()) != 2:  # noqa: PLR2004 - rows of a matrix
            raise op.refused("computed indices")
        return op.weighted("", lambda: _embedding(op.weight(0)), op.tensor(1))
    size = op.counts()[axis]
    indices = np.where(constant.value < 0, constant.value + size, constant.value)
    if indices.ndim == 0:
        return op.run(torch.select, op.tensor(), axis, int(indices))
    if indices.ndim > 1:
        raise op.refused(f"indices of {indices.ndim} axes")
    first, count = int(indices[0]), len(indices)
    if np.array_equal(indices, np.arange(first, first + count)):
        parts = [slice(None)] * axis + [slice(first or None, None if first + count == size else first + count)]
        return op.run(operator.getitem, op.tensor(), tuple(parts))
    held = op.hold(op.node.inputs[1], torch.from_numpy(np.array(indices, np.int64)))
    return op.run(torch.index_select, op.tensor(), axis, held)


def _embedding(weight: nn.Parameter) -> nn.Module:
    layer = nn.Embedding(weight.shape[0], weight.shape[1], device="meta")
    layer.weight = weight
    return layer


def expand(op: Operation) -> Operand:
    """Expand to the sizes that onnxruntime found.

    Raises:
        OperatorError: If a size is several times the batch.
    """
    given, wanted = op.sizes(), op.made_sizes()
    if given == wanted:
        return op.tensor()
    new = len(wanted) - len(given)
    sizes: list[int | RowCount] = []
    for axis, size in enumerate(wanted):
        if axis >= new and given[axis - new] == size:
            sizes.append(-1)
        elif size.grows and size.count != 1:
            raise op.refused(f"{size.count} times the batch")
        else:
            sizes.append(RowCount() if size.grows else size.count)
    return op.run(expanded, op.tensor(), sizes)


def tile(op: Operation) -> Value:
    """Tile a fixed number of times."""
    return op.run(torch.tile, op.tensor(), tuple(op.integers(1) or []))


def same(op: Operation) -> Value:
    """Identity, and Dropout in evaluation mode: nothing.

    Raises:
        OperatorError: If a dropout is in training mode.
    """
    if op.node.operator == "Dropout" and op.number(2, default=0):
        raise op.refused("training_mode: export after model.eval()")
    return op.tensor()


TABLE: Table = {
    "Concat": concat,
    "Dropout": same,
    "Expand": expand,
    "Flatten": reshape,
    "Gather": gather,
    "Identity": same,
    "Reshape": reshape,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
