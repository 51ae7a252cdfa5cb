"""Tables whose rows change in place: the browser keeps its elements, so nothing flickers and sorting stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from nicegui import ui

from server.dashboard.theme import keep_fresh
from server.dashboard.views import DeviceRow, EventRow

Row = DeviceRow | EventRow
_PILL = """<q-td :props="props"><span v-if="props.value && props.value.text"
 :class="'tf-pill tf-' + props.value.tone">{{ props.value.text }}</span></q-td>"""
_DEVICE = """<q-td :props="props"><a v-if="props.value" class="tf-link" :href="'/device/' + props.value">
 {{ props.value }}</a></q-td>"""
_EVIDENCE = """<q-td :props="props"><div style="display:flex;align-items:center;gap:10px">
 <div class="tf-meter" style="width:90px" role="presentation"><div :class="'tf-fill-' + props.value.tone"
 :style="{width: Math.min(100, Math.round(100 * (props.row.evidence_ratio || 0))) + '%'}"></div></div>
 <span :class="'tf-number tf-plain-' + props.value.tone">{{ props.value.text }}</span></div></q-td>"""
_WRAPPED = """<q-td :props="props" style="white-space:normal;min-width:260px">{{ props.value }}</q-td>"""
SLOTS: Mapping[str, str] = {"pill": _PILL, "device": _DEVICE, "evidence": _EVIDENCE, "wrapped": _WRAPPED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: the field of the row, its heading, and the look of a cell (a key of ``SLOTS``, or plain text)."""

    name: str
    label: str
    look: str = ""
    sortable: bool = True


def live_table(columns: Sequence[Column], key: str, look: Callable[[], Sequence[Row]], rows_per_page: int = 25) -> None:
    """Show ``look()`` as a table and keep it up to date; ``key`` is the field that identifies a row."""
    table = ui.table(
        columns=[_column(column) for column in columns], rows=_rows(look()), row_key=key,
        pagination={"rowsPerPage": rows_per_page},
    ).classes("tf-table").props("flat no-data-label='Nothing yet'")  # fmt: skip
    for column in columns:
        if column.look:
            table.add_slot(f"body-cell-{column.name}", SLOTS[column.look])

    def again() -> None:
        rows = _rows(look())
        if rows != table.rows:
            table.rows = rows

    keep_fresh(again)


def _rows(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [asdict(row) for row in rows]


def _column(column: Column) -> dict[str, object]:
    pointed = column.look in {"pill", "evidence"}  # a cell that is an object sorts by its text
    sorting = {":sort": "(a, b) => a.text.localeCompare(b.text, undefined, {numeric: true})"} if pointed else {}
    return {
        "name": column.name, "label": column.label, "field": column.name, "align": "left",
        "sortable": column.sortable, **sorting,
    }  # fmt: skip
