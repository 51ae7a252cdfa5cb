"""Inputs of a release with its answers, which the next release answers again: a uniform sample, also on the disk.

``replay/NUMBER-ARTIFACT`` below the state directory is of the release that served as the NUMBER-th; the highest number
is the last that served. A release that begins to serve gets the next number; older folders go, except that of the one
before it, whose inputs it answers again (``replay``). So a start of the process, a kill or a power cut between the
switch and the replay loses nothing: what the last folder is not of is what has to be answered again.

An input is one file, written aside and renamed, and its digest tells one that a power cut left torn. Nothing is
flushed: the kernel writes within seconds, and a lost file is one input less. Disk errors, and a disk that is nearly
full, cost the survival, never inference: the sample in memory goes on.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from edge_agent.device.disk import free_bytes
from edge_agent.inference.served_model import Inference, ServedModel
from edge_agent.tasks import TaskAnswer
from wire.manifest import Manifest, model_in

FOLDER = "replay"
KEPT_INPUTS = 64
KEPT_BYTES = 1024 * 1024
LEFT_BYTES = 16 * 1024 * 1024
"""Space that stays free on the disk, as after a download."""
_LARGEST = KEPT_BYTES // 8  # a larger input is not kept: the sample would be of a few
WRITES = 8
"""Inputs written at once, so that inference waits for a slow card only shortly."""
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """An input and how it was answered; ``number``: of the input among those offered; ``form``: what ``form_of`` says.

    ``release``: that answered.
    """

    number: int
    data: bytes
    answer: TaskAnswer
    release: str = ""
    form: str = ""

    def encoded(self) -> bytes:
        """Return the bytes of its file."""
        facts = {
            "label": self.answer.label, "values": dict(self.answer.values), "release": self.release, "form": self.form,
        }  # fmt: skip
        body = json.dumps(facts).encode() + b"\n" + self.data
        return _digest(body) + body

    @classmethod
    def read(cls, path: Path) -> KeptAnswer | None:
        """Return what is in the file at ``path``; None if it is torn, or not such a file."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            whole = path.read_bytes()
            body = whole[_DIGEST_BYTES:]
            if _digest(body) == whole[:_DIGEST_BYTES]:
                line, _, data = body.partition(b"\n")
                facts = json.loads(line)
                answer = TaskAnswer(label=facts["label"], values=facts["values"])
                return cls(
                    number=int(path.name), data=data, answer=answer, release=facts["release"], form=facts["form"]
                )
        return None


@dataclass(slots=True, kw_only=True)
class KeptInputs:
    """A uniform sample of the inputs of one release, with its answers; ``folder``: where it survives, None: nowhere.

    Source: J. Vitter, Random sampling with a reservoir, 1985, algorithm R; where inputs are large it holds fewer.
    """

    folder: Path | None = None
    chance: random.Random = field(default_factory=random.Random)
    items: list[KeptAnswer] = field(default_factory=list)
    _offered: int = 0
    _room: int = KEPT_INPUTS
    _bytes: int = 0
    _unwritten: dict[int, KeptAnswer] = field(default_factory=dict)
    _gone: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, release: str | None = None) -> KeptInputs:
        """Return what is in ``folder``, to go on with if it is of ``release``, or of any (None).

        The number of inputs offered is that of the last one kept: at most a few percent of them are not counted.
        """
        items = []
        for path in [path for path in folder.iterdir() if path.name.isdecimal()]:
            item = KeptAnswer.read(path)
            if item is not None and release in {None, item.release}:
                items.append(item)
            else:  # torn, or another release's of the same model
                path.unlink()
        offered = max((item.number for item in items), default=0)
        room = len(items) if offered > len(items) else KEPT_INPUTS
        return cls(
            folder=folder, items=items, _offered=offered, _room=min(room, KEPT_INPUTS),
            _bytes=sum(len(item.data) for item in items),
        )  # fmt: skip

    def offer(self, data: bytes, model: ServedModel, outcome: Inference) -> None:
        """Keep ``data`` and the answer of ``model``, perhaps."""
        if len(data) > _LARGEST:
            return
        self._offered += 1
        place = len(self.items) if len(self.items) < self._room else self.chance.randrange(self._offered)
        if place >= self._room:
            return
        if place < len(self.items):
            self._drop(place)
        manifest = model.manifest
        kept = KeptAnswer(
            number=self._offered, data=data, answer=model.answer(outcome), release=manifest.release,
            form=form_of(manifest),
        )  # fmt: skip
        self.items.append(kept)
        self._bytes += len(data)
        if self.folder is not None:
            self._unwritten[kept.number] = kept
        while self._bytes > KEPT_BYTES:
            self._drop(self.chance.randrange(len(self.items)))
            self._room = len(self.items)

    def _drop(self, place: int) -> None:
        gone = self.items.pop(place)
        self._bytes -= len(gone.data)
        if self._unwritten.pop(gone.number, None) is None:
            self._gone.append(gone.number)

    def write(self, most: int = WRITES) -> None:
        """Write at most ``most`` of the inputs that are not on the disk yet; after an error none is written."""
        if self.folder is None or not (self._unwritten or self._gone):
            return
        try:
            while self._gone:
                (self.folder / str(self._gone.pop())).unlink(missing_ok=True)
            for number in list(self._unwritten)[:most]:
                if free_bytes(self.folder) < LEFT_BYTES:
                    return
                aside = self.folder / f".{number}.new"
                aside.write_bytes(self._unwritten[number].encoded())
                aside.rename(self.folder / str(number))
                del self._unwritten[number]
        except OSError:  # full, read-only or gone
            self.folder = None
            self._unwritten.clear()


class KeptReleases:
    """The sample of the release that serves (``kept``), and that of the one ``before`` if it has to answer that."""

    def __init__(self, state: Path | None) -> None:
        """Prepare to keep inputs below ``state``; None: in memory only."""
        self.kept = KeptInputs()
        self.before: KeptInputs | None = None
        self._root = state / FOLDER if state is not None else None
        self._artifact = ""

    def serve(self, manifest: Manifest) -> None:
        """Note that the release of ``manifest`` serves from now on, after a swap or a start."""
        artifact = manifest.artifact_sha256
        if artifact == self._artifact:  # another release of one model answers alike
            self.kept = _emptied(self.kept)
            return
        self.kept.write(KEPT_INPUTS)
        served = self.kept if self._artifact else None
        self._artifact, self.kept, self.before = artifact, KeptInputs(), served
        if self._root is not None:
            with contextlib.suppress(OSError):  # what is in memory is there
                self._begin(self._root, manifest)
        if self.before is not None and any(model_in(item.release) != manifest.model for item in self.before.items):
            self.forget()  # answers of two models say nothing about either

    def _begin(self, root: Path, manifest: Manifest) -> None:
        """Make or find the folder of the release, find that of the one before it, and remove all others."""
        root.mkdir(mode=0o700, exist_ok=True)
        found = _numbered(root)
        earlier = {artifact: path for _, artifact, path in found}
        own = earlier.pop(manifest.artifact_sha256, None)
        last = found[-1][2] if found else None
        if own is None or own != last:
            number = found[-1][0] + 1 if found else 1
            path = root / f"{number}-{manifest.artifact_sha256}"
            path.mkdir(mode=0o700) if own is None else own.rename(path)
            own = path
        before = next(reversed(earlier.values()), None)
        if self.before is None and before is not None:
            self.before = KeptInputs.read(before)
        for path in root.iterdir():
            if path not in {own, before}:
                _remove(path)
        for answers in [*own.glob("answers*"), *own.glob(".*")]:  # of a release after it, which is not served any more
            answers.unlink()
        self.kept = KeptInputs.read(own, manifest.release)

    def forget(self) -> None:
        """Remove what was answered again: its counts are in the update's record."""
        before, self.before = self.before, None
        if before is not None and before.folder is not None:
            _remove(before.folder)


def form_of(manifest: Manifest) -> str:
    """Return a digest that two releases share which read inputs of the same form: each can read those of the other."""
    told = manifest.preprocessing
    form = [told.front_end, dict(told.front_end_options), *([told.bits] if told.deep else [])]
    form += [list(told.front_end_columns)] if told.front_end_columns else []
    text = json.dumps(form, sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _emptied(kept: KeptInputs) -> KeptInputs:
    """Return an empty sample in the folder of ``kept``."""
    if kept.folder is not None:
        with contextlib.suppress(OSError):
            for path in kept.folder.iterdir():
                path.unlink()
    return KeptInputs(folder=kept.folder)


def _numbered(root: Path) -> list[tuple[int, str, Path]]:
    def parts() -> Iterator[tuple[int, str, Path]]:
        for path in root.iterdir():
            number, dash, artifact = path.name.partition("-")
            if dash and number.isdecimal() and path.is_dir():
                yield int(number), artifact, path

    return sorted(parts())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=_DIGEST_BYTES).digest()
