"""One image at a time: shown large, answered by a key or a button, and what was answered before it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import ui

from server.access.roles import Need
from server.dashboard.learning import guess_text, sample_card
from server.dashboard.pages.label.session import GivenAnswer, LabelSession, class_keys, typed
from server.dashboard.pages.samples import form_of
from server.dashboard.theme import empty, heading, name_field
from server.dashboard.visit import Visit
from server.people import ActorKind
from server.retraining.labelling import NOTHING, LabelForm
from server.retraining.labels.queue import LabelQueue, LabelScope
from server.retraining.samples import BROKEN, UNSURE, StoredSample

# In the browser: a key goes with the image that is in view, so that a key that was meant for the image before is none.
KEYS = """<script>
document.addEventListener("keydown", (event) => {
  const card = document.querySelector("[data-label-sample]");
  if (!card || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (document.querySelector(".q-dialog") || !document.querySelector("[data-label-keys=on]")) return;
  if (event.target.closest("input:not([type=checkbox]), select, textarea, [contenteditable]")) return;
  const picture = card.querySelector("img");
  if (picture && !picture.complete) return;
  if (event.key === "/") {
    const field = document.querySelector(".tf-label-field input");
    if (field) { field.focus(); event.preventDefault(); }
  } else if (/^[0-9a-z?]$|^Arrow(Left|Right)$|^Escape$/i.test(event.key)) {
    if (event.key.startsWith("Arrow") && event.target.closest("[role=switch]")) return;
    emitEvent("label_key", {key: event.key, sample: Number(card.dataset.labelSample)});
  }
});
</script>"""
_SHOWN = """() => emit(Number((document.querySelector("[data-label-sample]") || {dataset: {}}).dataset.labelSample))"""
_HELP = (
    "0 to 9: the class with that key; N: none of these; S: skip; T: can't tell; B: picture broken; "
    "C or Arrow left: correct an earlier one; Arrow right: go on; U: undo; M: the model's answer"
)


class OneAtATime:
    """The page of one visitor. Answers of the same visitor are stored one after the other."""

    def __init__(self, visit: Visit, queue: LabelQueue, scope: LabelScope) -> None:
        """Take whose page it is, and what is labelled on it."""
        self.visit, self.queue, self.scope = visit, queue, scope
        self.session = LabelSession()
        self.form = LabelForm()
        self.name: Callable[[], str] = lambda: ""
        self._busy = False

    async def build(self) -> None:
        """Show the page with the first image."""
        if self.visit.who.actor.kind is not ActorKind.USER:
            self.name = name_field()
        await self._take()
        await self._learn_form()
        self._progress()
        self._card()
        self._choices()
        self._actions()
        self._last()
        ui.on("label_key", self._key)
        self.visit.client.on_disconnect(lambda: self.queue.leave(self._person()))

    def _person(self) -> str:
        return self.visit.by(self.name()).name

    # What is shown

    @ui.refreshable_method
    def _progress(self) -> None:
        with ui.element("div").classes("tf-row").props('role="status" aria-live="polite"'):
            ui.label(self.session.progress).classes("tf-number").style("font-weight: 600")
            ui.label(self.session.pace).classes("tf-muted tf-small")

    @ui.refreshable_method
    def _card(self) -> None:
        sample = self.session.shown
        if sample is None:
            with ui.element("div").props("data-label-sample=0"):
                if self.session.skipped:
                    empty("Only what you skipped is left", "Show it again, or leave it to somebody else.")
                    ui.button("Show what I skipped", on_click=self._again).props("outline no-caps")
                else:
                    empty(
                        "Nothing is left for you now",
                        "What somebody else has open comes back within minutes, and new images as devices send them. "
                        "Undo and correct still work.",
                    )
            return
        with ui.element("section").classes("tf-card tf-label-one").props(f"data-label-sample={sample.id}"):
            alt = f"Sample {sample.id} of {sample.device}"
            ui.html(f'<img src="/samples/{sample.id}/image" alt="{alt}">', sanitize=False)
            with ui.element("div").classes("tf-label-text"):
                self._texts(sample)

    def _texts(self, sample: StoredSample) -> None:
        card, earlier = sample_card(sample, self.form), self.session.earlier
        if earlier is not None:
            ui.label(f"Earlier image: you said {earlier.text}. Answer it anew, or go on.").style("font-weight: 600")
        elif self.session.turn.why:
            ui.label(f"{self.session.turn.why}.".capitalize()).style("font-weight: 600")
        ui.link(f"Sample {sample.id}", f"/samples/{sample.id}").classes("tf-link")
        ui.label(f"{card.device}, {card.taken}").classes("tf-muted tf-small")
        ui.label(card.lane).classes("tf-muted tf-small")
        if sample.claimed and self.session.seen:
            ui.label(f"A user of the device said {sample.claimed}.").classes("tf-small")
        if self.session.seen:
            ui.label(f"The model said {guess_text(sample, self.form)}.").classes("tf-small")
        if self.session.pressed:
            ui.label(f"{self.session.pressed}_: one digit more").classes("tf-number")

    @ui.refreshable_method
    def _choices(self) -> None:
        form = self.form
        if form.refusal:
            ui.label(f"Not labelled here: {form.refusal}.")
            return
        keys = class_keys(form)
        with ui.element("div").classes("tf-label-keys").props('role="group" aria-label="Classes"'):
            for key, name in keys.items():
                self._button(f"{key}  {name}", f"{name}, key {' '.join(key)}", partial(self._label, name))
            if form.classes:
                self._button(f"N  {NOTHING}", f"{NOTHING}, key N", partial(self._label, NOTHING))
        if not self._has_field():
            return
        names = list(dict.fromkeys((*form.classes, NOTHING))) if form.classes else []
        field = ui.input(", ".join(form.values) or "Search a class ( / )", autocomplete=names)
        field.props("dense outlined").classes("tf-label-field")

        async def save(event: Any) -> None:  # noqa: ANN401 - of any kind
            text = " ".join(str(field.value or "").split())
            field.value = ""
            await self._if_shown(event, partial(self._label, text))

        field.on("keydown.enter", save, js_handler=_SHOWN)

    def _has_field(self) -> bool:
        """Return whether a field takes what no key of one digit answers."""
        classes = set(self.form.classes) - {NOTHING}
        return not (self.form.classes and len(class_keys(self.form)) == len(classes) <= 10)  # noqa: PLR2004 - a key each

    def _actions(self) -> None:
        with ui.element("div").classes("tf-row tf-label-acts").props('role="group" aria-label="What else"'):
            for key, text, act in (
                ("S", "Skip", self._skip),
                ("T", "Can't tell", partial(self._mark, UNSURE)),
                ("B", "Picture broken", partial(self._mark, BROKEN)),
                ("C", "Correct an earlier one", partial(self._step, 1)),
                ("→", "Go on", partial(self._step, -1)),
                ("U", "Undo", self._undo),
                ("M", "Model's answer", self._model),
            ):
                self._button(f"{key}  {text}", f"{text}, key {'Arrow right' if key == '→' else key}", act)
        with ui.element("div").classes("tf-row"):
            keys = ui.switch("Keys", value=True).props('aria-label="Answer by keys"')
            state = ui.element("span").props("data-label-keys=on")
            keys.on_value_change(lambda: state.props(f"data-label-keys={'on' if keys.value else 'off'}"))
            search = "; /: search a class" if self._has_field() else ""
            ui.label(f"{_HELP}{search}.").classes("tf-muted tf-small tf-grow")

    @ui.refreshable_method
    def _last(self) -> None:
        with ui.element("section").classes("tf-card"):
            heading("Your last answers")
            if not self.session.given:
                ui.label("None yet. What the model said stands here once you have answered.").classes("tf-muted")
            for one in reversed(self.session.given[-5:]):
                said = (
                    "skipped"
                    if one.skipped
                    else f"you said {one.text}; the model said {guess_text(one.sample, self.form)}"
                )
                with ui.element("div").classes("tf-row tf-small"):
                    ui.link(f"Sample {one.sample.id}", f"/samples/{one.sample.id}").classes("tf-link")
                    ui.label(said).classes("tf-muted")

    def _button(self, text: str, name: str, act: Callable[[], Awaitable[None]]) -> None:
        button = ui.button(text).props("outline dense no-caps")
        button.props["aria-label"] = name
        button.on("click", partial(self._if_shown, act=act), js_handler=_SHOWN)

    # What is done

    async def _if_shown(self, event: Any, act: Callable[[], Awaitable[None]]) -> None:  # noqa: ANN401 - of any kind
        """Do ``act`` if the person sees the image that this page shows, and nothing else is being done."""
        sample = self.session.shown
        if self._busy or event.args != (sample.id if sample else 0):
            return
        self._busy = True
        try:
            await act()
        finally:
            self._busy = False

    async def _key(self, event: Any) -> None:  # noqa: ANN401 - of any kind
        key = str(event.args["key"])
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "s": self._skip, "u": self._undo, "c": partial(self._step, 1), "arrowleft": partial(self._step, 1),
            "arrowright": partial(self._step, -1), "escape": partial(self._step, -len(self.session.given)),
            "t": partial(self._mark, UNSURE), "b": partial(self._mark, BROKEN), "m": self._model,
            "n": partial(self._label, NOTHING),
        }  # fmt: skip
        act = partial(self._digit, key) if key.isdigit() else acts.get(key.lower())
        if act is not None:
            event.args = event.args["sample"]
            await self._if_shown(event, act)

    async def _digit(self, key: str) -> None:
        keys = class_keys(self.form)
        complete, self.session.pressed = typed(self.session.pressed, key, list(keys))
        if complete:
            await self._label(keys[complete])
        else:
            self._card.refresh()

    async def _label(self, label: str) -> None:
        session, sample = self.session, self.session.shown
        if sample is None or not label or (label == NOTHING and not self.form.classes):
            return
        earlier = session.earlier
        if earlier is None or earlier.label != label:
            was = earlier.label if earlier else ""
            done = await self.visit.ask(partial(self._save, sample, label, was, seen=session.seen), Need.LABEL)
            if done is None:
                return
        if earlier is not None:
            session.given[-session.back] = GivenAnswer(sample=sample, label=label, seen=earlier.seen or session.seen)
            session.skipped.discard(sample.id)
            session.step(-1)
            await self._refresh()
        else:
            await self._go_on(GivenAnswer(sample=sample, label=label, seen=session.seen))

    def _save(self, sample: StoredSample, label: str, was: str, *, seen: bool) -> StoredSample:
        samples, now_ms = self.visit.services.retraining.samples, self.visit.services.fleet.clock()
        stored = samples.sample(sample.id).label
        by = self.visit.by(self.name()) if self._may_sign() else ""
        return samples.label(sample.id, label, by, now_ms, replaces=was if was and stored == was else None, seen=seen)

    def _may_sign(self) -> bool:
        return self.visit.who.actor.kind is ActorKind.USER or bool(self.name())

    async def _mark(self, mark: str) -> None:
        session, sample = self.session, self.session.shown
        if sample is None:
            return
        earlier = session.earlier
        done = await self.visit.ask(partial(self._save_mark, sample, mark, bool(earlier and earlier.label)), Need.LABEL)
        if done is None:
            return
        if earlier is not None:
            session.given[-session.back] = GivenAnswer(sample=sample, mark=mark, seen=earlier.seen)
            session.skipped.discard(sample.id)
            session.step(-1)
            await self._refresh()
        else:
            await self._go_on(GivenAnswer(sample=sample, mark=mark, seen=session.seen))

    def _save_mark(self, sample: StoredSample, mark: str, labelled: bool) -> bool:  # noqa: FBT001 - called by partial
        samples, now_ms = self.visit.services.retraining.samples, self.visit.services.fleet.clock()
        by = self.visit.by(self.name()) if self._may_sign() else ""
        if labelled:
            samples.take_back(sample.id, by, now_ms)
        samples.mark(sample.id, mark, by, now_ms)
        return True

    async def _skip(self) -> None:
        sample = self.session.shown
        if sample is None or self.session.earlier is not None:
            await self._step(-1)
            return
        await self.visit.ask(partial(self.queue.leave, self._person(), sample))
        await self._go_on(GivenAnswer(sample=sample))

    async def _step(self, by: int) -> None:
        self.session.step(by)
        await self._refresh()

    async def _model(self) -> None:
        self.session.seen = True
        self._card.refresh()

    async def _undo(self) -> None:
        """Take the last answer back, and show its image again."""
        if not self.session.given:
            return
        last = self.session.given[-1]
        if await self.visit.ask(partial(self._take_back, last), Need.LABEL) is None:
            return
        self.session.forget()
        await self._take()
        await self._refresh()

    def _take_back(self, given: GivenAnswer) -> bool:
        samples, now_ms = self.visit.services.retraining.samples, self.visit.services.fleet.clock()
        by = self.visit.by(self.name()) if self._may_sign() else ""
        if given.label:
            samples.take_back(given.sample.id, by, now_ms)
        elif given.mark:
            samples.mark(given.sample.id, "", by, now_ms)
        return True

    async def _again(self) -> None:
        self.session.skipped.clear()
        self.session.given = [one for one in self.session.given if not one.skipped]
        await self._take()
        await self._refresh()

    async def _go_on(self, given: GivenAnswer) -> None:
        self.session.add(given, time.monotonic())
        await self._take()
        await self._refresh()

    async def _take(self) -> None:
        """Take the next image."""
        now_ms = self.visit.services.fleet.clock()
        take = partial(self.queue.take, self.scope, self._person(), now_ms, frozenset(self.session.skipped))
        turn = await self.visit.ask(take)
        if turn is not None:
            self.session.show(turn, time.monotonic())

    async def _refresh(self) -> None:
        """Show the image of now; the buttons stay where they are, and keep the focus, unless the classes change."""
        if await self._learn_form():
            self._choices.refresh()
        self._progress.refresh()
        self._card.refresh()
        self._last.refresh()

    async def _learn_form(self) -> bool:
        """Ask for the classes of the image that is shown; return whether they are others than before."""
        sample, before = self.session.shown, self.form
        if sample is not None:
            versions = self.visit.services.versions
            form = await self.visit.ask(partial(form_of, versions, sample.artifact_sha256, sample.model))
            self.form = before if form is None else form
        return self.form != before
