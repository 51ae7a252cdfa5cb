"""Lists on pages: read once for all visitors of the same address, filtered by it, a page of rows at a time.

Each list has its filters in its address, so a link leads to it. They are a plain form: it works by keyboard, and what a
visitor filters by is no state of the server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import urlencode

from nicegui import ui

from server.dashboard.theme import FIRST_S, Column, empty, live_apart, live_table_apart
from server.errors import CursorRefusedError
from server.store.lists.paging import Page

Asked = TypeVar("Asked", bound=Hashable)
AddressFilters: TypeAlias = tuple[tuple[str, str], ...]
"""What an address asks of a list: its filters and the place in it, sorted by name."""
Found = TypeVar("Found")
_MOST_KEPT = 64
_MAX_VALUE = 200


@dataclass(slots=True)
class SharedLook(Generic[Asked, Found]):
    """Looks once for all visitors who ask for the same. Safe to share between threads.

    While one visitor's look lasts, others get what was seen last if it is younger than ``FIRST_S``: they wait for
    nobody, and their next refresh has the news.
    """

    look: Callable[[Asked], Found]
    _kept: dict[Asked, tuple[float, Found]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, asked: Asked, at_most_s: float) -> Found:
        """Return what was found at most ``at_most_s`` ago, or is found now; 10 s while another visitor looks."""
        known, now_s = self._kept.get(asked), time.monotonic()
        if known is not None and now_s - known[0] <= at_most_s:
            return known[1]
        if known is None or now_s - known[0] > FIRST_S:
            self._lock.acquire()
        elif not self._lock.acquire(blocking=False):
            return known[1]
        try:
            known = self._kept.get(asked)  # another visitor may have looked meanwhile
            if known is None or time.monotonic() - known[0] > at_most_s:
                known = self._again(asked)
            return known[1]
        finally:
            self._lock.release()

    def _again(self, asked: Asked) -> tuple[float, Found]:
        known = time.monotonic(), self.look(asked)
        self._kept.pop(asked, None)
        self._kept[asked] = known  # the last: the first is the one that nobody has asked for longest
        while len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return known


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterField:
    """One field of the form: its name in the address, its label, and its ``choices`` (texts by value), if it has some.

    A field without choices takes any text; with ``hint``, it shows that while it is empty. ``kind``: of the HTML input.
    """

    name: str
    label: str
    kind: str = "search"
    hint: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)


def values_of(query: Mapping[str, str], fields: Sequence[FilterField]) -> tuple[dict[str, str], str]:
    """Return the filters in the query of an address, and what is wrong with it, "" for nothing.

    A wrong filter is not left out: the list would be another one than was asked for.
    """
    names = [one.name for one in fields] + [CURSOR]
    strange = [name for name in query if name not in names]
    if strange:
        return {}, f"Expected {', '.join(names)} in the address, got {strange[0][:_MAX_VALUE]!r}"
    for one in fields:
        value = query.get(one.name, "")
        if one.choices and value and value not in one.choices:
            return {}, f"Expected {one.name} to be one of {', '.join(one.choices)}, got {value[:_MAX_VALUE]!r}"
        if len(value) > _MAX_VALUE:
            return {}, f"Expected {one.name} of at most {_MAX_VALUE} characters, got {len(value)}"
    return {name: value for name, value in query.items() if value}, ""


CURSOR = "cursor"


def refused(look: Callable[[float], Page[Any]]) -> str:
    """Look at a page for the first time; return why it is refused, "" if it is not."""
    try:
        look(FIRST_S)
    except CursorRefusedError as error:
        return str(error)
    return ""


def address(path: str, values: Mapping[str, str], **changes: str) -> str:
    """Return the address of a list with ``values`` as filters, some of them changed; "" takes one out."""
    wanted = {name: value for name, value in {**values, **changes}.items() if value}
    return path + (f"?{urlencode(wanted)}" if wanted else "")


def filter_form(path: str, fields: Sequence[FilterField], values: Mapping[str, str]) -> None:
    """Show the form; sending it leads to the list's first page."""
    inputs = "".join(_input(one, values.get(one.name, "")) for one in fields)
    clear = f'<a class="tf-link" href="{escape(path)}">Show all</a>' if values else ""
    ui.html(
        f'<form class="tf-filter" method="get" action="{escape(path)}" role="search">{inputs}'
        f'<button type="submit">Filter</button>{clear}</form>',
        sanitize=False,
    )


def _input(one: FilterField, value: str) -> str:
    name, label = escape(one.name), escape(one.label)
    if not one.choices:
        hint = f' placeholder="{escape(one.hint)}"' if one.hint else ""
        shown = f'<input type="{one.kind}" name="{name}" value="{escape(value)}" maxlength="{_MAX_VALUE}"{hint}>'
    else:
        options = "".join(
            f'<option value="{escape(choice)}"{" selected" if choice == value else ""}>{escape(text)}</option>'
            for choice, text in {"": "any", **one.choices}.items()
        )
        shown = f'<select name="{name}">{options}</select>'
    return f"<label>{label} {shown}</label>"


def pager(path: str, values: Mapping[str, str], page: Page[Any], what: str) -> None:
    """Show how many rows there are, and links to the pages beside this one; ``what``: the rows, in the plural."""
    shown = f"{len(page.rows):,}"
    text = f"{shown} {what}" if page.total in {None, len(page.rows)} else f"{shown} of {page.total:,} {what}"
    with ui.element("nav").classes("tf-row tf-small").props(f'aria-label="Pages of {escape(what)}"'):
        ui.label(text).classes("tf-muted tf-number")
        if page.previous is not None:
            ui.link("First page", address(path, values, cursor="")).classes("tf-link")
            ui.link("Previous", address(path, values, cursor=page.previous)).classes("tf-link")
        if page.next is not None:
            ui.link("Next", address(path, values, cursor=page.next)).classes("tf-link")


def page_ends(look: Callable[[float], Page[Any]]) -> Callable[[float], Page[Any]]:
    """Return a look at what ``pager`` shows, which changes less often than the rows."""

    def ends(at_most_s: float) -> Page[Any]:
        found = look(at_most_s)
        return Page(rows=(None,) * len(found.rows), next=found.next, previous=found.previous, total=found.total)

    return ends


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPage:
    """A page that is one list: ``path``, its rows in the plural (``what``), its filters and columns.

    ``key``: the field that identifies a row. ``none``: what is shown where there is no row at all.
    """

    path: str
    what: str
    fields: Sequence[FilterField]
    columns: Sequence[Column]
    key: str
    none: str

    def build(self, query: Mapping[str, str], looks: SharedLook[AddressFilters, Page[Any]]) -> None:
        """Show filters, rows and the links beside them, by the ``query`` of the address; what is wrong is shown."""
        values, wrong = values_of(query, self.fields)
        filter_form(self.path, self.fields, values)
        asked = tuple(sorted(values.items()))

        def look(at_most_s: float) -> Page[Any]:
            return looks.get(asked, at_most_s)

        if wrong := wrong or refused(look):
            empty("No such list", f"{wrong}. See all {self.what} at the address {self.path}.")
            return

        def show(known: bool) -> None:  # noqa: FBT001 - what one look found
            if known:
                live_table_apart(self.columns, self.key, lambda at_most_s: look(at_most_s).rows)
            elif values:
                empty(f"No {self.what} here", f"None is as the filters ask: see all at the address {self.path}.")
            else:
                empty(f"No {self.what} yet", self.none)

        live_apart(lambda at_most_s: bool(look(at_most_s).rows), show)
        live_apart(page_ends(look), lambda found: pager(self.path, values, found, self.what))
