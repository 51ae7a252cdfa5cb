"""The frame, the small elements and the tables of every page. A state is never shown by colour alone: it has a text."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote
from weakref import WeakKeyDictionary, WeakSet

from nicegui import Client, background_tasks, core, run, ui

from server.dashboard.views import Status, Tone
from server.people import MAX_NAME, MAX_WHY, SOMEBODY, Actor, ActorKind

if TYPE_CHECKING:
    from _typeshed import DataclassInstance as Row

STYLE = files("server.dashboard").joinpath("theme.css").read_text(encoding="utf-8")
SCRIPT = files("server.dashboard.finding").joinpath("search.js").read_text(encoding="utf-8")
_SEARCH = """<form action="/search" method="get" role="search"><input id="tf-search" type="search" name="text"
 aria-label="Search everything" placeholder="Search ( / )" autocomplete="off" spellcheck="false" maxlength="200"
 role="combobox" aria-expanded="false" aria-controls="tf-found" aria-autocomplete="list"></form>
<div id="tf-found" role="listbox" aria-label="Found" hidden></div>"""
PAGES = (
    ("/", "Overview"), ("/alerts", "Alerts"), ("/drift", "Drift"), ("/rollouts", "Rollouts"),
    ("/releases", "Releases"), ("/events", "Events"), ("/samples", "Samples"), ("/retraining", "Retraining"),
    ("/jobs", "Jobs"), ("/software", "Software"),
)  # fmt: skip
FOOT = (("/settings", "Settings"), ("/about", "About"))
REFRESH_S = 1.5
FRESH_S, FIRST_S = 1.0, 10.0
"""How old what many visitors share may be, at a refresh and when a page opens."""
_DARK_COOKIE = "tinyfleet_dark"
_NAME_COOKIE = "tinyfleet_name"
_KEPT = "path=/; max-age=31536000; samesite=strict"
# In the browser, without the server: who leaves the page at once has chosen all the same.
_TURN_DARK = f"""() => {{
 const dark = !Quasar.Dark.isActive;
 document.cookie = `{_DARK_COOKIE}=${{dark ? 1 : 0}}; {_KEPT}`;
 Quasar.Dark.set(dark);
}}"""
_KEEP_NAME = f"""(event) => {{
 const name = event.target.value.trim().replace(/\\s+/g, " ");
 document.cookie = `{_NAME_COOKIE}=${{encodeURIComponent(name)}}; {_KEPT}`;
}}"""
# Where the page is not served over TLS, a browser has no clipboard for scripts; what is selected it copies.
_COPY = """(event) => {
 const from = document.querySelector(".tf-secret"), button = event.target.closest("button");
 const done = () => { button.querySelector(".block").textContent = "Copied"; };
 if (navigator.clipboard) { navigator.clipboard.writeText(from.textContent).then(done); return; }
 getSelection().selectAllChildren(from);
 if (document.execCommand("copy")) done();
}"""
_IS_OPEN: WeakKeyDictionary[Client, Callable[[], bool]] = WeakKeyDictionary()
_ENDING: WeakSet[Client] = WeakSet()
_LEAVE_S = 0.5  # so that the browser gets the word to leave before its socket closes
_VISITORS: WeakKeyDictionary[Client, Actor] = WeakKeyDictionary()
LOGIN = "/login"
View = TypeVar("View")


@contextmanager
def frame(
    title: str, path: str, is_open: Callable[[], bool], who: Actor, *,
    counts: Mapping[str, Callable[[], int]] | None = None, more: Sequence[tuple[str, str]] = (),
) -> Iterator[None]:  # fmt: skip
    """Build the header and the column that the page fills; ``path`` marks the current page.

    ``is_open`` returns whether the person is still logged in; called before each refresh. ``who``: the visitor.
    ``counts``: what the menu shows beside a page's name, by its path, unless it is 0. ``more``: pages of the menu that
    only some visitors have.
    """
    _IS_OPEN[ui.context.client] = is_open
    _VISITORS[ui.context.client] = who
    ui.add_head_html(f"<style>{STYLE}</style><script>{SCRIPT}</script>")
    ui.page_title(f"{title}: tinyfleet")
    ui.colors(primary="#1f5fbf", negative="#b3261e")
    request = ui.context.client.request
    ui.dark_mode({"0": False, "1": True}.get(request.cookies.get(_DARK_COOKIE, "") if request else ""))
    with ui.header().classes("tf-bar"):
        ui.label("tinyfleet").classes("tf-brand")
        for target, name in (*PAGES, *more):
            link = ui.link(name, target).classes("tf-nav" + (" tf-nav-on" if target == path else ""))
            if target == path:
                link.props('aria-current="page"')
            if counts and target in counts:
                _counted(link, name, counts[target], is_open)
        ui.element("div").classes("tf-grow")
        ui.html(_SEARCH, sanitize=False).classes("tf-search")
        ui.link(who.account, "/account").classes("tf-nav" + (" tf-nav-on" if path == "/account" else ""))
        button = ui.button(icon="contrast").on("click", js_handler=_TURN_DARK)
        button.props('flat round dense color=grey aria-label="Light or dark"')
        with ui.element("form").props('method="post" action="/logout"'):
            ui.button("Log out").props("flat dense no-caps color=grey type=submit")
    client = ui.context.client
    ui.timer(REFRESH_S, lambda: None if is_open() else _end(client))
    with ui.element("div").classes("tf-page"):
        yield
    with ui.footer(fixed=False).classes("tf-foot"):
        ui.label("All times are UTC.")
        for target, name in FOOT:
            ui.link(name, target).classes("tf-link")


async def _close(client: Client) -> None:
    """Send the browser to the login page, then close its socket and delete its page, whatever the browser does."""
    if client.is_deleted:
        return
    client.open(LOGIN)
    await asyncio.sleep(_LEAVE_S)
    for _, connection in list(core.sio.manager.get_participants("/", client.id)):
        await core.sio.eio.disconnect(connection)  # Socket.IO's own word would leave the connection to the browser
    if not client.is_deleted:
        client.delete()


def _end(client: Client) -> None:
    if client not in _ENDING:
        _ENDING.add(client)
        background_tasks.create(_close(client), name=f"end of session {client.id}")


def _counted(link: ui.link, name: str, count: Callable[[], int], is_open: Callable[[], bool]) -> None:
    """Keep a number behind the name of a page in the menu."""

    def again() -> None:
        found = count() if is_open() else 0
        link.set_text(f"{name} ({found})" if found else name)

    again()
    ui.timer(4 * REFRESH_S, again)


def name_field() -> Callable[[], str]:
    """Show a field for the person's name, which this browser remembers; return a function that reads it."""
    name = _remembered_name().style("max-width: 260px")
    return lambda: _said(name)


def _remembered_name() -> ui.input:
    request = ui.context.client.request
    known = unquote(request.cookies.get(_NAME_COOKIE, "") if request else "")[:MAX_NAME]
    name = _name()
    name.value = name.value or known
    name.on("blur", js_handler=_KEEP_NAME)
    return name


def heading(text: str, level: int = 2) -> None:
    """Show a heading; ``level`` 1 is the page's title."""
    with ui.element(f"h{level}"):
        ui.label(text)


def pill(status: Status) -> None:
    """Show a state: a word, a colour and a shape."""
    ui.label(status.text).classes(f"tf-pill {tone_class(status.tone)}")


def tone_class(tone: Tone) -> str:
    """Return the CSS class of ``tone``."""
    return "" if tone is Tone.CALM else f"tf-{tone}"


def meter(ratio: float, tone: Tone, what: str) -> None:
    """Show ``ratio`` (0..1, clipped) as a bar; ``what`` it is a share of is told to who can't see it."""
    percent = round(100 * min(max(ratio, 0.0), 1.0))
    bar = ui.element("div").classes("tf-meter").props(f'role="meter" aria-valuenow="{percent}"')
    bar.props["aria-label"] = what
    with bar:
        ui.element("div").classes(f"tf-fill-{tone}").style(f"width: {percent}%")


class Markup(str):
    """HTML in which texts are escaped: see ``tag``."""

    __slots__ = ()


def tag(name: str, *parts: str, look: str = "", style: str = "", **attributes: str) -> Markup:
    """Return one element of HTML; ``parts`` are escaped unless they are ``Markup``, ``look`` are its classes.

    A page's server side keeps some 5 kB for each of its elements and visitors, and for what ``show_markup`` shows once.
    """
    given = {"class": look, "style": style, **{key.replace("_", "-"): value for key, value in attributes.items()}}
    shown = "".join(f' {key}="{escape(value)}"' for key, value in given.items() if value)
    inside = "".join(part if isinstance(part, Markup) else escape(part) for part in parts)
    return Markup(f"<{name}{shown}>{inside}</{name}>")


def show_markup(*parts: Markup, look: str = "") -> None:
    """Show ``parts`` as one element without buttons, with the classes ``look``."""
    ui.html("".join(parts), sanitize=False).classes(look)


def pill_tag(status: Status) -> Markup:
    """Return what ``pill`` shows."""
    return tag("div", status.text, look=f"tf-pill {tone_class(status.tone)}")


def meter_tag(ratio: float, tone: Tone, what: str) -> Markup:
    """Return what ``meter`` shows."""
    percent = f"{round(100 * min(max(ratio, 0.0), 1.0))}"
    bar = tag("div", look=f"tf-fill-{tone}", style=f"width: {percent}%")
    return tag("div", bar, look="tf-meter", role="meter", aria_valuenow=percent, aria_label=what)


def device_tag(device: str) -> Markup:
    """Return a link to the page of ``device``."""
    return tag("a", device, look="tf-link", href=f"/device/{device}")


def more_tag(count: int) -> Markup:
    """Return what ``and_more`` shows."""
    return tag("div", f"and {count} more", look="tf-muted tf-small") if count else Markup("")


def empty(title: str, text: str) -> None:
    """Show that a list is empty, and the next step."""
    with ui.element("div").classes("tf-card tf-empty"):
        heading(title)
        ui.label(text).classes("tf-muted")


def and_more(count: int, where: str = "") -> None:
    """Show how many entries the page leaves out, and ``where`` they are; nothing if ``count`` is 0."""
    if count:
        ui.label(f"and {count} more" + (f": {where}" if where else "")).classes("tf-muted tf-small")


def live(look: Callable[[], View], show: Callable[[View], None]) -> Callable[[], Awaitable[None]]:
    """Show ``look()``, and again only when it has changed, so that nothing flickers; return a refresh function."""
    seen = look()

    @ui.refreshable
    def part() -> None:
        show(seen)

    def again() -> None:
        nonlocal seen
        fresh = look()
        if fresh != seen:
            seen = fresh
            part.refresh()

    part()
    return keep_fresh(again)


def live_apart(look: Callable[[float], View], show: Callable[[View], None]) -> Callable[[], Awaitable[None]]:
    """Do as ``live``, but look in a thread, so that other visitors do not wait for the database.

    ``look`` takes how many seconds old its answer may be: a page is there at once with what was seen last, and is up to
    date with its first refresh. Returns a function that looks and shows now.
    """
    seen = look(FIRST_S)

    @ui.refreshable
    def part() -> None:
        show(seen)

    async def again() -> None:
        nonlocal seen
        fresh = await run.io_bound(look, FRESH_S)
        if fresh is not None and fresh != seen:  # None: the server stops
            seen = fresh
            part.refresh()

    part()
    return keep_fresh(again)


def keep_fresh(again: Callable[[], Awaitable[None] | None]) -> Callable[[], Awaitable[None]]:
    """Call ``again`` every ``REFRESH_S``; return a function that does so now.

    Once the session has ended, the browser is sent to the login page, its socket is closed, and it gets no more data.
    """
    client = ui.context.client

    async def if_open() -> None:
        if _IS_OPEN.get(client, _nobody)():
            waiting = again()
            if waiting is not None:
                await waiting
        else:
            timer.deactivate()
            _end(client)

    timer = ui.timer(REFRESH_S, if_open)
    return if_open


async def show_once(client: Client, title: str, note: str, secret: str) -> None:
    """Show a secret with a button that copies it, until the person closes the dialog; then the page lacks it."""
    with client, ui.dialog().props("persistent") as dialog, ui.element("div").classes("tf-card"):
        heading(title)
        ui.label(note).classes("tf-muted")
        ui.label(secret).classes("tf-mono tf-secret").style("overflow-wrap: anywhere")
        with ui.element("div").classes("tf-row"):
            ui.element("div").classes("tf-grow")
            ui.button("Copy").on("click", js_handler=_COPY).props("unelevated no-caps")
            ui.button("Done", on_click=lambda: dialog.submit(True)).props("flat no-caps")
    await dialog
    dialog.clear()
    dialog.delete()


def _nobody() -> bool:
    return False


async def ask_why(client: Client, question: str, detail: str, action: str) -> str | None:
    """Ask for confirmation and a reason; return the reason (may be ""), None if cancelled."""
    with client, ui.dialog() as dialog, ui.element("div").classes("tf-card"):
        heading(question)
        ui.label(detail).classes("tf-muted")
        why = ui.input("Why").props(f"dense outlined maxlength={MAX_WHY}").style("min-width: 300px")
        with ui.element("div").classes("tf-row"):
            ui.element("div").classes("tf-grow")
            ui.button("Cancel", on_click=lambda: dialog.submit(None)).props("flat no-caps color=grey")
            ui.button(action, on_click=lambda: dialog.submit(why.value or "")).props(
                "unelevated no-caps color=negative"
            )
    answer = await dialog
    dialog.delete()
    return None if answer is None else str(answer)


async def ask_decision(client: Client, question: str, detail: str, action: str) -> tuple[str, str] | None:
    """Ask for a reason and the person's name, which this browser remembers; return both, None if cancelled.

    The reason may be "", and the name is that of an operator if none is given.
    """
    with client, ui.dialog() as dialog, ui.element("div").classes("tf-card"):
        heading(question)
        ui.label(detail).classes("tf-muted")
        why = ui.input("Why").props(f"dense outlined maxlength={MAX_WHY}").style("min-width: 300px")
        name = _remembered_name()
        _answers(dialog, action, lambda: (str(why.value or ""), _said(name) or SOMEBODY))
    answer = await dialog
    dialog.delete()
    return (str(answer[0]), str(answer[1])) if answer else None


async def confirm(client: Client, question: str, detail: str, action: str) -> bool:
    """Ask for confirmation; return whether the person confirmed.

    The dialog belongs to the page and not to the button, which may be rebuilt while the dialog is open.
    """
    with client, ui.dialog() as dialog, ui.element("div").classes("tf-card"):
        heading(question)
        ui.label(detail).classes("tf-muted")
        _answers(dialog, action, lambda: True)
    answer = await dialog
    dialog.delete()
    return bool(answer)


async def choose(
    client: Client, question: str, choices: Mapping[str, str], action: str
) -> tuple[str, str] | None:  # fmt: skip
    """Ask for one of ``choices`` (texts by key) and the person's name; None if cancelled."""
    with client, ui.dialog() as dialog, ui.element("div").classes("tf-card"):
        heading(question)
        chosen = ui.radio(dict(choices), value=next(iter(choices), None))
        name = _name()
        _answers(dialog, action, lambda: (chosen.value, _said(name)) if chosen.value and _said(name) else None)
    answer = await dialog
    dialog.delete()
    return (str(answer[0]), str(answer[1])) if answer else None


async def ask_name(client: Client, question: str, detail: str, action: str) -> str | None:
    """Ask for the person's name, which is recorded with the action; None if cancelled."""
    with client, ui.dialog() as dialog, ui.element("div").classes("tf-card"):
        heading(question)
        ui.label(detail).classes("tf-muted")
        name = _name()
        _answers(dialog, action, lambda: _said(name))
    answer = await dialog
    dialog.delete()
    return str(answer) if answer else None


def _name() -> ui.input:
    """Return a field for the person's name; who has an account of its own can't give another."""
    field = ui.input("Your name").props(f"dense outlined maxlength={MAX_NAME}")
    who = _VISITORS.get(ui.context.client)
    if who is not None and who.kind is ActorKind.USER:
        field.value = who.account
        field.props("readonly")
    return field


def _said(name: ui.input) -> str:
    return " ".join(str(name.value or "").split())


def _answers(dialog: ui.dialog, action: str, answer: Callable[[], object]) -> None:
    """Show the two buttons of a dialog; an empty answer does not close it."""
    with ui.element("div").classes("tf-row"):
        ui.element("div").classes("tf-grow")
        ui.button("Cancel", on_click=lambda: dialog.submit(None)).props("flat no-caps color=grey")
        ui.button(action, on_click=lambda: dialog.submit(answer()) if answer() else None).props("unelevated no-caps")


_PILL = """<q-td :props="props"><span v-if="props.value && props.value.text"
 :class="'tf-pill tf-' + props.value.tone">{{ props.value.text }}</span></q-td>"""
_PLAIN = """<q-td :props="props"><span class="tf-cut" :title="props.value">{{ props.value }}</span></q-td>"""
_DEVICE = """<q-td :props="props"><a v-if="props.value" class="tf-link tf-cut" :title="props.value"
 :href="'/device/' + props.value">{{ props.value }}</a></q-td>"""
_EVIDENCE = """<q-td :props="props"><div style="display:flex;align-items:center;gap:10px">
 <div class="tf-meter" style="width:90px" role="presentation"><div :class="'tf-fill-' + props.value.tone"
 :style="{width: Math.min(100, Math.round(100 * (props.row.evidence_ratio || 0))) + '%'}"></div></div>
 <span :class="'tf-number tf-plain-' + props.value.tone">{{ props.value.text }}</span></div></q-td>"""
_WRAPPED = """<q-td :props="props" style="white-space:normal;min-width:260px">{{ props.value }}</q-td>"""
_LINK = """<q-td :props="props"><a v-if="props.value.href" class="tf-link tf-cut" :title="props.value.text"
 :href="props.value.href">{{ props.value.text }}</a><span v-else class="tf-cut"
 :title="props.value.text">{{ props.value.text }}</span></q-td>"""
SLOTS: Mapping[str, str] = {
    "pill": _PILL, "device": _DEVICE, "evidence": _EVIDENCE, "wrapped": _WRAPPED, "link": _LINK,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: the field of the row, its heading, and the look of a cell (a key of ``SLOTS``, or plain text)."""

    name: str
    label: str
    look: str = ""
    sortable: bool = True


def live_table(columns: Sequence[Column], key: str, look: Callable[[], Sequence[Row]], rows_per_page: int = 25) -> None:
    """Show ``look()`` as a table and keep it up to date; ``key`` is the field that identifies a row."""
    table = _table(columns, key, look(), {"rowsPerPage": rows_per_page})

    def again() -> None:
        rows = _rows(look())
        if rows != table.rows:
            table.rows = rows

    keep_fresh(again)


def live_table_apart(columns: Sequence[Column], key: str, look: Callable[[float], Sequence[Row]]) -> None:
    """Show one page of a list as a table; it looks as ``live_apart`` does, and the table shows all rows of the page."""
    table = _table(columns, key, look(FIRST_S), {"rowsPerPage": 0}).props("hide-pagination")

    async def again() -> None:
        found = await run.io_bound(look, FRESH_S)
        rows = _rows(found or ())
        if rows and rows != table.rows:  # without rows the page shows something else
            table.rows = rows

    keep_fresh(again)


def _table(columns: Sequence[Column], key: str, rows: Sequence[Row], pagination: dict[str, int]) -> ui.table:
    # under 600 pixels each row is a card, whose lines have the headings that the style names
    headings = "; ".join(f"--c{at}: '{column.label}'" for at, column in enumerate(columns, start=1))
    region = ui.element("div").classes("tf-scroll").style(headings)
    with region.props('tabindex=0 role=region aria-label="Table, scrolls sideways"'):
        table = ui.table(
            columns=[_column(column) for column in columns], rows=_rows(rows), row_key=key, pagination=pagination
        ).classes("tf-table").props("flat no-data-label='Nothing yet'")  # fmt: skip
    table.add_slot("body-cell", _PLAIN)
    for column in columns:
        if column.look:
            table.add_slot(f"body-cell-{column.name}", SLOTS[column.look])
    return table


def _rows(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [asdict(row) for row in rows]


def _column(column: Column) -> dict[str, object]:
    pointed = column.look in {"pill", "evidence", "link"}  # a cell that is an object sorts by its text
    sorting = {":sort": "(a, b) => a.text.localeCompare(b.text, undefined, {numeric: true})"} if pointed else {}
    return {
        "name": column.name, "label": column.label, "field": column.name, "align": "left",
        "sortable": column.sortable, **sorting,
    }  # fmt: skip
