"""Tables of text as programs write them: delimiter, byte-order mark, other names of columns.

The delimiter is found out from the header: comma, semicolon or tab, whichever gives the most of the wanted columns.
``[data] columns`` maps what a data set wants to the name that the file has.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from compressor.errors import ColumnError, DataError
from wire.settings import nearest

DELIMITERS = (",", ";", "\t")
UNREAD = " (not read)"
"""Follows the name of a column whose name another column takes."""
FLAGS: Mapping[str, float] = MappingProxyType({"true": 1.0, "false": 0.0})
"""What cells of a flag are, besides 0 and 1, in lower case."""
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
"""What cells without a value have, as programs write them, in lower case."""
_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """The lines of a table: its delimiter, its header with the wanted names, and the cells of each further line.

    Empty lines are left out.
    """

    delimiter: str
    head: list[str]
    cells: list[list[str]]

    def line(self, place: int, where: str) -> dict[str, str]:
        """Return the cells of line ``place`` by column; those that a short line lacks are left out.

        Raises:
            DataError: If it has more cells than the header; ``where`` is named.
        """
        cells = self.cells[place]
        if len(cells) > len(self.head):
            message = f"Expected no more cells in {where} than the header has, got {len(cells) - len(self.head)} more"
            raise DataError(f"{message}: put cells with a {self.delimiter!r} in quotes")
        return dict(zip(self.head, cells, strict=False))

    def column(self, name: str) -> list[str]:
        """Return the cells of the column ``name`` of the header, empty where a line is too short."""
        place = self.head.index(name)
        return [line[place] if len(line) > place else "" for line in self.cells]


def lines_of(
    content: bytes, name: str, wanted: Sequence[str], columns: Mapping[str, str], *, strict: bool = False
) -> Lines:
    """Return the table in ``content``, the file ``name``; ``wanted``: columns that decide on the delimiter.

    ``strict``: misplaced quotes are errors.

    Raises:
        ColumnError: If one of ``columns`` is not there, or two columns have one name.
        DataError: If it is not UTF-8, or not a table.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"Expected {name} as CSV in UTF-8, got: {error}: export it again"
        raise DataError(message) from error
    asked = [columns.get(column, column) for column in wanted]
    delimiter = _delimiter(text, asked)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)
        found = [line for line in reader if line]
    except csv.Error as error:
        message = f"Expected {name} as CSV in UTF-8, got: {error}: export it again"
        raise DataError(message) from error
    head = found[0] if found else []
    if len(set(head)) != len(head):
        message = f"Expected columns of different names in {name}, got {', '.join(head)[:200]}"
        raise ColumnError(f"{message}: one of two would not be read")
    return Lines(
        delimiter=delimiter,
        head=renamed(head, columns, name),
        cells=found[1:],
    )


def flag(cell: object, where: str) -> float:
    """Return 0 or 1, also written as false and true, of the ``cell`` of a label; ``where`` is for messages.

    Raises:
        DataError: If it is something else.
    """
    text = str(cell).strip().casefold()
    try:
        value = FLAGS[text] if text in FLAGS else float(text)
    except ValueError:
        value = -1.0
    if value not in {0.0, 1.0}:
        raise DataError(f"Expected 0 or 1 in {where}, got {cell!r}: mend the cell or leave the row out")
    return value


def flags(
    names: Sequence[str], columns: Sequence[Sequence[object]], where: str, *, first_row: int
) -> list[list[float]]:  # fmt: skip
    """Return the label ``columns``, called ``names``, as 0 and 1; ``where``: the file, for messages.

    Raises:
        DataError: If cells are no flags; all columns are named, with what else they have and how often.
    """
    found: list[list[float]] = []
    said: list[str] = []
    for name, cells in zip(names, columns, strict=True):
        values, others, first = list[float](), Counter[str](), 0
        for row, cell in enumerate(cells, start=first_row):
            try:
                values.append(flag(cell, name))
            except DataError:
                others["" if cell is None else str(cell).strip()] += 1
                first = first or row
        if others:
            counts = others.most_common(_SHOWN)
            seen = ", ".join(f"{repr(text[:40]) if text else 'nothing'} ({count})" for text, count in counts)
            said.append(f"column {name!r}, row {first}, got {seen}")
        found.append(values)
    if said:
        more = f"; {len(said) - _SHOWN} columns more" if len(said) > _SHOWN else ""
        message = f"Expected 0 or 1 in {where}, {'; '.join(said[:_SHOWN])}{more}"
        raise DataError(
            f"{message}: write 0 where nothing was found, and decide on uncertain cells (often -1): 0, 1, or leave the "
            'rows out of the table (missing = "drop" looks at features, not at label columns)'
        )
    return found


def name_it(column: str) -> str:
    """Return the end of a message on a missing ``column`` that the file may call otherwise."""
    return f': name the one that it is, columns = {{{column} = "…"}} in [data]'


def renamed(head: Sequence[str], columns: Mapping[str, str], name: str) -> list[str]:
    """Return ``head`` with the columns that ``columns`` names under the names that a data set wants.

    Raises:
        ColumnError: If one is not there.
    """
    for wanted, own in columns.items():
        if own not in head:
            message = f"Expected the column {own!r} in {name} ([data] columns, {wanted}), got {', '.join(head)[:200]}"
            raise ColumnError(message + nearest(own, list(head)))
    known = {own: wanted for wanted, own in columns.items()}
    return [known.get(own, own + UNREAD if own in columns else own) for own in head]


def check_columns(columns: Mapping[str, str], known: Collection[str], dataset: str) -> None:
    """Check that ``[data] columns`` names only columns that ``dataset`` knows, and none of the file twice.

    Raises:
        DataError: If it does not.
    """
    for wanted, own in columns.items():
        if wanted not in known:
            message = f"Expected in [data] columns, with dataset = {dataset!r}, one of {', '.join(sorted(known))}"
            raise DataError(f"{message}, got {wanted!r}{nearest(wanted, known)}")
        other = next((one for one, name in columns.items() if name == own and one != wanted), None)
        if other is not None:
            message = f"Expected in [data] columns a column for each, got {own!r} for {other} and {wanted}"
            raise DataError(f"{message}: leave one out")


def _delimiter(text: str, wanted: Sequence[str]) -> str:
    first = text.lstrip("\r\n").partition("\n")[0]

    def score(delimiter: str) -> tuple[int, int]:
        head = next(csv.reader([first], delimiter=delimiter), [])
        return len(set(head) & set(wanted)), len(head)

    try:
        return max(DELIMITERS, key=score)  # the first of equals: a comma
    except csv.Error:  # a cell beyond its limit; the reader of the whole says so
        return DELIMITERS[0]
