"""Answers where something comes from and what came of it: data, run, release, rollout, device, samples, labels, job.

Nothing is guessed. What the server does not know is a node that says so: inputs of a run stand only in the signed
bundle, what a device ran only in its reports. Each answer is bounded; lists of devices and samples have pages of their
own (``runs``, ``given``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from server.dashboard.finding.addresses import page_of
from server.errors import ServerError, UnknownDeviceError, UnknownJobError, UnknownReleaseError, UnknownSampleError
from server.lineage.graph import OWN, REPORT, SIGNED, WORKER, Drawing, LineageGraph, LineageNode, NodeAct
from server.people import SERVER_ACTOR
from server.registry.statements import Stated, stated
from server.registry.versions import Release, Versions, release_of
from server.store import fleet as devices_store
from server.store import registry
from server.store import retraining as learning
from server.store.database import Database
from server.store.lists import lineage as store
from server.store.lists.devices import running_counts
from server.store.lists.paging import Page
from server.store.monitoring.evidence import one_verdict
from server.store.monitoring.spans import counted_at
from server.store.people.audit_log import acts_about
from server.wording import listed, utc_time
from wire.codec import Json, parse_json
from wire.errors import MessageError, WireError

_GENERATIONS = 10
_ROLLOUTS, _SITES, _PEOPLE, _NAMED, _ACTS, _LATER, _CHANGES = 10, 20, 10, 6, 10, 50, 50
_INPUTS = {
    "recipe": ("recipe", "the recipe"), "data": ("data", "the table of training and gate rows"),
    "calibration": ("data", "inputs that set the ranges of a quantization"),
    "unlabelled": ("data", "inputs without labels that a teacher answered"),
    "drifted_train": ("data", "samples of drifted devices that it was trained on"),
    "drifted_held": ("data", "samples of drifted devices that were held back to judge it"),
    "job_samples": ("data", "the archive of labelled samples that the job gave"),
    "base_bundle": ("file", "the bundle of the release that it began from"),
    "start_weights": ("weights", "the float weights that training began with"),
    "float_weights": ("weights", "the float weights after training"),
    "compressed_weights": ("weights", "the weights after compression"),
    "teacher": ("weights", "the teacher's file"), "float_model": ("file", "the model's file before quantization"),
}  # fmt: skip
_SHORT = 12
_NUL = "\0"  # no stored text has it, and PostgreSQL takes none


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRun:
    """A time at which a device ran a release by its reports. ``until_ms``: 0 where it is what it reported last.

    ``left``: the device is no longer in the fleet. ``site`` is "" where its row is gone.
    """

    device: str
    site: str
    release: str
    from_ms: int
    until_ms: int
    received_ms: int
    left: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSampleRow:
    """A sample that a job was given, with its label then and now ("" for none). ``label_by``: "" if not known."""

    sample: int
    device: str
    sha256: str
    lane: str
    label: str
    label_by: str
    labelled_ms: int
    watched: bool
    label_now: str


@dataclass(frozen=True, slots=True)
class LineageAnswers:
    """The answers of one server. Safe to share between threads; ``of_*`` read bundles, so call them in one."""

    database: Database
    versions: Versions

    def of_release(self, name: str) -> LineageGraph:
        """Return what a release was made of, who approved it, where it ran and what was made from it.

        Raises:
            UnknownReleaseError: If there is none.
        """
        drawing = Drawing()
        with self.database.begin() as connection:
            subject = self._sketch(connection, drawing).release(name, whole=True)
        return drawing.graph(subject)

    def of_device(self, device: str, at_ms: int) -> LineageGraph:
        """Return what ``device`` ran at ``at_ms`` (UTC), since when, and what that was made of.

        Raises:
            UnknownDeviceError: If there is none.
        """
        drawing = Drawing()
        with self.database.begin() as connection:
            subject = self._sketch(connection, drawing).device(device, at_ms)
        return drawing.graph(subject)

    def of_sample(self, sample: int) -> LineageGraph:
        """Return where a sample comes from, who labelled it, and which releases were given it.

        Raises:
            UnknownSampleError: If there is none, and no job was given it.
        """
        drawing = Drawing()
        with self.database.begin() as connection:
            subject = self._sketch(connection, drawing).sample(sample)
        return drawing.graph(subject)

    def of_job(self, job: str) -> LineageGraph:
        """Return why a job was made, from what, with which labels, and what came of it.

        Raises:
            UnknownJobError: If there is none.
        """
        drawing = Drawing()
        with self.database.begin() as connection:
            row = _known_job(connection, job)
            subject = self._sketch(connection, drawing).job(row, _GENERATIONS)
        return drawing.graph(subject)

    def runs(
        self, *, release: str = "", sample: int | None = None, now: bool | None = None, limit: int = 200,
        cursor: str | None = None,
    ) -> Page[ReleaseRun]:  # fmt: skip
        """Return a page of the times at which devices ran ``release``, or one that was given ``sample``.

        Releases made from such a one count too. ``now``: only what devices report now, or only what they did before.

        Raises:
            UnknownReleaseError: If there is no such release.
            UnknownSampleError: If there is no such sample.
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        if sample is None:
            self.versions.release(release)
        with self.database.begin() as connection:
            releases = [release] if sample is None else _given_releases(connection, *_image(connection, sample))
            found = store.run_page(connection, releases, now=now, limit=limit, cursor=cursor)
        return found.of(_run)

    def given(self, job: str, *, limit: int = 200, cursor: str | None = None) -> Page[GivenSampleRow]:
        """Return a page of the samples that ``job`` was given, by their numbers.

        Raises:
            UnknownJobError: If there is none.
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            _known_job(connection, job)
            found = store.given_page(connection, job, limit=limit, cursor=cursor)
        return found.of(lambda row: GivenSampleRow(**{name: row[name] for name in GivenSampleRow.__dataclass_fields__}))

    def _sketch(self, connection: sa.Connection, drawing: Drawing) -> _Sketch:
        told: dict[str, list[Release]] = {}
        for row in registry.all_releases(connection):
            release = release_of(row)
            told.setdefault(release.name, []).append(release)
        return _Sketch(connection=connection, drawing=drawing, told=told, versions=self.versions)


def _known_job(connection: sa.Connection, job: str) -> sa.RowMapping:
    row = None if _NUL in job else learning.one_job(connection, job)
    if row is None:
        raise UnknownJobError(f"Expected the id of a job, got {job[:80]!r}: see GET /api/jobs")
    return row


def _image(connection: sa.Connection, sample: int) -> tuple[str, str]:
    """Return model and digest of a sample, whose own row may be gone.

    Raises:
        UnknownSampleError: If nothing is known of it.
    """
    row = learning.one_sample(connection, sample) or store.given_of(connection, sample)
    if row is None:
        raise UnknownSampleError(f"Expected the id of a sample, got {sample}: see GET /api/samples")
    return str(row["model"]), str(row["sha256"])


def _given_releases(connection: sa.Connection, model: str, sha256: str) -> list[str]:
    """Return the releases of jobs that were given an image, and those that were made from them."""
    jobs = store.jobs_given(connection, model, sha256, _LATER)
    direct = [str(row["release"]) for row in jobs if row["state"] == "done" and row["release"]]
    return list(dict.fromkeys([*direct, *(str(row["release"]) for row in _later(connection, direct))]))


def _later(connection: sa.Connection, releases: Collection[str]) -> list[sa.RowMapping]:
    """Return the jobs that made a release from one of ``releases``, or from one that was made so."""
    found: dict[str, sa.RowMapping] = {}
    reached, front = set(releases), set(releases)
    while front and len(found) < _LATER:
        rows = store.made_from(connection, front, _LATER)
        found |= {str(row["id"]): row for row in rows}
        front = {str(row["release"]) for row in rows} - reached
        reached |= front
    return list(found.values())[:_LATER]


def _run(row: sa.RowMapping) -> ReleaseRun:
    return ReleaseRun(
        device=row["device"], site=row["site"] or "", release=row["release"], from_ms=row["from_ms"],
        until_ms=row["until_ms"] or 0, received_ms=row["received_ms"], left=row["ended"] != "",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sketch:
    """Draws one answer in one transaction. ``told``: the releases by name."""

    connection: sa.Connection
    drawing: Drawing
    told: dict[str, list[Release]]
    versions: Versions

    def release(self, name: str, *, whole: bool = False, depth: int = _GENERATIONS) -> str:
        """Add a release and what it was made of; ``whole``: its rollouts, devices and later releases too.

        Raises:
            UnknownReleaseError: If ``whole``, and there is none.
        """
        found = self.told.get(name, [])
        if f"release:{name}" in self.drawing.nodes:
            return f"release:{name}"
        if not found:
            if whole:
                message = f"Expected a published release, got {name[:80]!r}: see GET /api/releases"
                raise UnknownReleaseError(message)
            words = "no release of this name was published here: of what it was made is not known"
            return self.drawing.add(LineageNode(kind="release", id=name, words=words, known=False))
        first = found[0]
        facts: dict[str, Json] = {
            "model": first.model, "version": first.version, "targets": [one.target for one in found],
            "artifacts": {one.target: one.custom.artifact_sha256 for one in found},
            "bundles": {one.target: one.sha256 for one in found},
        }  # fmt: skip
        words = f"for {listed([one.target for one in found], _NAMED)}"
        if first.withdrawn_ms:
            words += f"; withdrawn by {first.withdrawn_by or 'somebody'}"
            words += f": {first.withdrawn_why}" if first.withdrawn_why else ""
        key = self.drawing.add(LineageNode(
            kind="release", id=name, words=words, link=page_of("release", name), at_ms=first.registered_ms,
            facts=facts, acts=self._acts("release", name),
        ))  # fmt: skip
        self._made_of(key, first, depth)
        if whole:
            self._rollouts(key, name)
            self._places(key, name)
            self._descendants(key, name)
        return key

    def _made_of(self, key: str, release: Release, depth: int) -> None:
        """Add the run, its inputs and gates as the bundle states them, and the job that ordered it."""
        statement, problem = _statement(self.versions, release)
        if statement is None:
            words = f"not known: the bundle can't be read here ({problem})"
            run = self.drawing.add(LineageNode(kind="run", id=release.name, words=words, known=False))
        else:
            run = self._run(release, statement)
        self.drawing.join(run, key, "made", SIGNED)
        jobs = store.jobs_that_made(self.connection, release.name, 1)
        if jobs:
            if depth > 0:
                self.drawing.join(self.job(jobs[0], depth - 1, result=False), run, "ordered", WORKER)
            else:
                self.drawing.left_out["generations"] = 1
        elif statement is not None:
            self.drawing.answers.append(f"{release.name} was made by no job of this server: a build host published it.")

    def _run(self, release: Release, statement: Stated) -> str:
        judged = statement.certificate
        facts: dict[str, Json] = {name: value for name, value in statement.inputs.items() if name not in _INPUTS}
        words = "known by its recipe and data; the bundle has no id of a run"
        run = self.drawing.add(LineageNode(kind="run", id=release.name, words=words, facts=facts))
        shown = []
        for name, digest in statement.inputs.items():
            if name in _INPUTS:
                kind, what = _INPUTS[name]
                node = self.drawing.add(LineageNode(kind=kind, id=digest, words=what))
                self.drawing.join(node, run, f"{name.replace('_', ' ')} of", SIGNED)
                shown += [f"{name} {digest[:_SHORT]}"] if name in ("data", "recipe") else []
        if shown:
            self.drawing.answers.append(f"{release.name} was made of {' and '.join(shown)}, by its signed bundle.")
        else:
            words = "not known: the bundle states no digest of data or recipe"
            missing = self.drawing.add(LineageNode(kind="data", id=release.name, words=words, known=False))
            self.drawing.join(missing, run, "made of", SIGNED)
        if judged is None:
            words = "not known: the bundle has no certificate (gate.json)"
            gates = self.drawing.add(LineageNode(kind="gates", id=release.name, words=words, known=False))
        else:
            passed = sum(gate.verdict == "pass" for gate in judged.gates)
            words = f"{judged.verdict or 'no verdict'} against {judged.baseline or 'nothing'}: "
            words += f"{passed} of {len(judged.gates)} gates passed"
            facts = {"gate_split": judged.gate_split, "gate_labels": judged.gate_labels, "look": judged.look}
            gates = self.drawing.add(LineageNode(kind="gates", id=release.name, words=words, facts=facts))
        self.drawing.join(run, gates, "judged by", SIGNED)
        return run

    def job(self, row: sa.RowMapping, depth: int, *, result: bool = True) -> str:
        """Add a job, why it was made, its base and what it was given; ``result``: what came of it too."""
        job, state = str(row["id"]), str(row["state"])
        if f"job:{job}" in self.drawing.nodes:
            return f"job:{job}"
        words = {"done": f"done by {row['worker']}", "failed": f"failed: {row['code']} {row['text']}".strip()}.get(
            state, f"{state}{' by ' + row['worker'] if row['worker'] else ''}"
        )
        facts: dict[str, Json] = {
            "state": state, "labelled": row["labelled"], "samples_sha256": row["samples_sha256"],
            "gate_split": row["gate_split"], "look": row["look"],
        }  # fmt: skip
        key = self.drawing.add(LineageNode(
            kind="job", id=job, words=f"{words}; {row['cause']}", at_ms=row["created_ms"], facts=facts,
            link=page_of("job", job), acts=self._acts("job", job),
        ))  # fmt: skip
        self._asked(key, int(row["retraining"]))
        self._given(key, row)
        base = self.release(str(row["base_release"]), depth=depth)
        self.drawing.join(base, key, "began from", OWN)
        if result and row["release"]:
            self.drawing.join(key, self.release(str(row["release"]), whole=row["release"] in self.told), "made", WORKER)
        return key

    def _asked(self, job: str, retraining: int) -> None:
        row = learning.one_trigger(self.connection, retraining)
        if row is None:
            words = "not known: its row is gone"
            key = self.drawing.add(LineageNode(kind="retraining", id=str(retraining), words=words, known=False))
        else:
            facts: dict[str, Json] = {"devices": len(row["devices"]), "phase": row["phase"]}
            acts = self._acts("retraining", str(retraining))
            key = self.drawing.add(LineageNode(
                kind="retraining", id=str(retraining), words=row["words"], at_ms=row["opened_ms"], facts=facts,
                acts=acts, link=page_of("retraining", ""),
            ))  # fmt: skip
            if row["verdict"]:
                verdict = one_verdict(self.connection, int(row["verdict"]))
                words = "not known: its row is gone" if verdict is None else f"{verdict['kind']}: {verdict['cause']}"
                node = self.drawing.add(LineageNode(
                    kind="verdict", id=str(row["verdict"]), words=words, known=verdict is not None,
                    at_ms=0 if verdict is None else verdict["opened_ms"],
                    acts=self._acts("verdict", str(row["verdict"])),
                ))  # fmt: skip
                self.drawing.join(node, key, "started", OWN)
        self.drawing.join(key, job, "ordered", OWN)

    def _given(self, key: str, row: sa.RowMapping) -> None:
        """Add the samples and labels that a job was given, as counts by lane and person."""
        job, counts = str(row["id"]), store.given_counts(self.connection, str(row["id"]))
        if not counts:
            words = (
                f"{row['labelled']} labelled images, not known which: the job was made before the server listed them"
            )
            node = self.drawing.add(LineageNode(kind="samples", id=job, words=words, known=False))
            self.drawing.join(node, key, "given to", OWN)
            return
        drifted = sum(count for watched, _, _, count in counts if not watched)
        others = sum(count for watched, _, _, count in counts if watched)
        lanes, people = Counter[str](), Counter[str]()
        for _, lane, by, count in counts:
            lanes[lane] += count
            people[by] += count
        changed = store.relabelled(self.connection, job)
        words = f"{drifted} labelled images of devices that drifted"
        words += f" and {others} of others" if others else ""
        words += "; the worker trained on some and judged by the rest"
        facts: dict[str, Json] = {"drifted": drifted, "watched": others, "lanes": dict(lanes), "relabelled": changed}
        node = self.drawing.add(LineageNode(
            kind="samples", id=job, words=words, facts=facts, link=f"/api/lineage/samples?job={job}"
        ))  # fmt: skip
        unknown = people.pop("", 0)
        named = dict(people.most_common(_PEOPLE))
        each = [f"{by} ({count})" for by, count in people.most_common()]
        said = listed([*([f"people who are not known ({unknown})"] if unknown else []), *each], _PEOPLE)
        words = f"by {said}" + (f"; {changed} have another label now, or none" if changed else "")
        labels = self.drawing.add(LineageNode(
            kind="labels", id=job, words=words, known=bool(named),
            facts={"by": dict(named), "unknown": unknown, "changed": changed},
        ))  # fmt: skip
        self.drawing.join(node, labels, "labelled with", OWN)
        self.drawing.join(labels, key, "given to", OWN)
        sentence = f"Job {job} was given {words_of_given(drifted, others)}, labelled by {said}"
        self.drawing.answers.append(sentence + (f"; {changed} have another label now." if changed else "."))

    def _rollouts(self, key: str, name: str) -> None:
        rows, count = store.rollouts_of(self.connection, name, _ROLLOUTS)
        for row in rows:
            self.drawing.join(key, self._rollout(row), "rolled out by", OWN)
        if count > len(rows):
            self.drawing.left_out["rollouts"] = count - len(rows)
        if not rows:
            self.drawing.answers.append(f"No rollout of {name} was made: nobody approved one.")

    def _rollout(self, row: sa.RowMapping) -> str:
        rollout = str(row["id"])
        rollout, acts = str(row["id"]), self._acts("rollout", str(row["id"]))
        by, approved = self._approved(row, acts)
        words = f"{str(row['phase']).replace('_', ' ')}; {approved}"
        facts: dict[str, Json] = {"phase": row["phase"], "created_by": row["created_by"], "approved_by": list(by)}
        key = self.drawing.add(LineageNode(
            kind="rollout", id=rollout, words=words, at_ms=row["created_ms"], facts=facts, acts=acts,
            link=page_of("rollout", rollout),
        ))  # fmt: skip
        self.drawing.answers.append(f"Rollout {rollout} of {row['release']}: {words}.")
        return key

    def _approved(self, row: sa.RowMapping, acts: Sequence[NodeAct]) -> tuple[list[str], str]:
        """Return who approved a rollout, and that in words with where it is known from."""
        by = [str(one) for one in json.loads(row["approvals"] or "[]")]
        by = by or list(dict.fromkeys(act.by for act in acts if act.act == "rollout.approve"))
        if by:
            return by, f"approved by {listed(by, _PEOPLE)}"
        trigger = learning.trigger_with_rollout(self.connection, str(row["id"]))
        if trigger is not None:
            given = self._acts("retraining", str(trigger["id"]))
            by = list(dict.fromkeys(act.by for act in given if act.act == "retraining.approve"))
            if by:
                return by, f"approved with retraining {trigger['id']} by {listed(by, _PEOPLE)}"
        if not row["opened"] and row["phase"] == "awaiting_approval":
            return [], "nobody has approved it yet"
        if row["created_by"] == SERVER_ACTOR.account:
            return [], "started by the server itself ([retraining] auto_rollout): no person approved it"
        if row["created_by"] and row["phase"] != "aborted":
            return [str(row["created_by"])], f"made and started by {row['created_by']}"
        return [], "who approved it is not known"

    def _places(self, key: str, name: str) -> None:
        """Add how many devices run the release, by site, and how many ever ran it."""
        sites = [(site, count) for _, site, count in running_counts(self.connection, [name])]
        now, ever = sum(count for _, count in sites), store.ran_counts(self.connection, [name]).get(name, 0)
        facts: dict[str, Json] = {"now": now, "ever": ever, "sites": dict(sites[:_SITES])}
        if len(sites) > _SITES:
            self.drawing.left_out["sites"] = len(sites) - _SITES
        words = f"{now} report running it, {ever} ever did"
        devices = self.drawing.add(LineageNode(
            kind="devices", id=name, words=words, facts=facts, link=f"/api/lineage/devices?release={name}"
        ))  # fmt: skip
        self.drawing.join(key, devices, "ran on", REPORT)
        self.drawing.answers.append(f"{name}: {words}.")

    def _descendants(self, key: str, name: str) -> None:
        """Add the jobs that began from the release, and what came of them."""
        for row in _later(self.connection, [name]):
            job = self.drawing.add(LineageNode(
                kind="job", id=str(row["id"]), words=f"done by {row['worker']}; {row['cause']}",
                at_ms=row["created_ms"], link=page_of("job", str(row["id"])),
            ))  # fmt: skip
            base = f"release:{row['base_release']}"
            self.drawing.join(base if base in self.drawing.nodes else key, job, "began from", OWN)
            made = self._bare_release(str(row["release"]))
            self.drawing.join(job, made, "made", WORKER)

    def _bare_release(self, name: str) -> str:
        """Add a release without what it was made of."""
        found = self.told.get(name, [])
        words = f"for {listed([one.target for one in found], _NAMED)}" if found else "not published here"
        return self.drawing.add(LineageNode(
            kind="release", id=name, words=words, known=bool(found), link=page_of("release", name) if found else "",
            at_ms=found[0].registered_ms if found else 0, acts=self._acts("release", name),
        ))  # fmt: skip

    def device(self, device: str, at_ms: int) -> str:
        """Add a device, what it ran at a time, and what that was made of."""
        row = None if _NUL in device else devices_store.one_device(self.connection, device)
        if row is None:
            raise UnknownDeviceError(f"Expected a device, got {device[:80]!r}: see GET /api/devices")
        words = f"of site {row['site']}" + (f"; {row['ended']}" if row["ended"] else "")
        key = self.drawing.add(LineageNode(
            kind="device", id=device, words=words, link=page_of("device", device), at_ms=row["enrolled_ms"],
            acts=self._acts("device", device),
        ))  # fmt: skip
        ran = devices_store.ran_at(self.connection, device, at_ms)
        if ran is None or not ran["release"]:
            words = "it ran no release then" if ran else "not known: it had reported nothing by then"
            node = self.drawing.add(LineageNode(kind="release", id="", words=words, known=ran is not None))
            self.drawing.join(node, key, "ran on", REPORT)
            self.drawing.answers.append(f"{device}: {words}.")
            return key
        self._ran(key, device, ran, at_ms)
        return key

    def _ran(self, key: str, device: str, ran: sa.RowMapping, at_ms: int) -> None:
        name, until_ms = str(ran["release"]), store.ran_until(self.connection, ran)
        of_bundle = next((one for one in self.told.get(name, []) if one.sha256 == ran["sha256"]), None)
        artifact = of_bundle.custom.artifact_sha256 if of_bundle else ""
        counted = counted_at(self.connection, device, at_ms)
        facts: dict[str, Json] = {
            "at_ms": at_ms, "release": name, "bundle": ran["sha256"], "artifact": artifact, "from_ms": ran["from_ms"],
            "until_ms": until_ms, "received_ms": ran["received_ms"], "counted_by": list(counted),
        }  # fmt: skip
        if counted and artifact:
            agrees = any(artifact.startswith(one) for one in counted)
            words = "its drift windows of then name the same file" if agrees else (
                f"its drift windows of then name another file ({listed([one[:_SHORT] for one in counted], 3)}): it "
                "switched within them, or the times of its clock are off"
            )  # fmt: skip
        else:
            words = "no drift window of then is kept that could confirm it"
        node = self.drawing.add(LineageNode(
            kind="run_on_device", id=f"{device}/{ran['from_ms']}", words=words, at_ms=ran["from_ms"], facts=facts
        ))  # fmt: skip
        release = self.release(name)
        self.drawing.join(release, node, "ran", REPORT)
        self.drawing.join(node, key, "on", REPORT)
        rollout = store.rollout_that_assigned(self.connection, device, name, at_ms)
        if rollout is None:
            self.drawing.answers.append(
                f"No rollout assigned {name} to {device}: it came another way, such as a stick."
            )
        else:
            shown = self._rollout(rollout)
            self.drawing.join(release, shown, "rolled out by", OWN)
            self.drawing.join(shown, node, "assigned", OWN)
        until = f"until {utc_time(until_ms)}" if until_ms else "and reported nothing else since"
        since = utc_time(int(ran["from_ms"]))
        sentence = f"{device} ran {name} at {utc_time(at_ms)}, from {since} {until}, by its own reports."
        self.drawing.answers.insert(0, sentence)

    def sample(self, sample: int) -> str:
        """Add a sample, what took it, its labels, and the releases of jobs that were given it."""
        row = learning.one_sample(self.connection, sample)
        model, sha256 = _image(self.connection, sample)
        given = store.jobs_given(self.connection, model, sha256, _LATER)
        if row is None:
            words = "its own row is gone (expired, without a label): known from the jobs that were given it"
            key = self.drawing.add(LineageNode(
                kind="sample", id=str(sample), words=words, facts={"model": model, "sha256": sha256}
            ))  # fmt: skip
        else:
            key = self._taken(row)
        labels = self._labels(row, model, sha256, sample)
        self.drawing.join(key, labels, "labelled with", OWN)
        now = str(row["label"] or "") if row is not None else ""
        for job in given:
            self._was_given(labels, job, now)
        self._learned(given, sample)
        return key

    def _taken(self, row: sa.RowMapping) -> str:
        """Add a sample and the release that its device ran when it took it."""
        device, at_ms = str(row["device"]), int(row["at_ms"])
        facts: dict[str, Json] = {
            "model": row["model"], "sha256": row["sha256"], "lane": row["lane"], "predicted": row["predicted"],
            "artifact": row["artifact_sha256"],
        }  # fmt: skip
        key = self.drawing.add(LineageNode(
            kind="sample", id=str(row["id"]), words=f"taken by {device} for {row['model']}", at_ms=at_ms, facts=facts,
            link=page_of("sample", str(row["id"])),
        ))  # fmt: skip
        node = self.drawing.add(LineageNode(kind="device", id=device, words="", link=page_of("device", device)))
        self.drawing.join(node, key, "took", REPORT)
        ran = devices_store.ran_at(self.connection, device, at_ms)
        if ran is not None and ran["release"]:
            self.drawing.join(self._bare_release(str(ran["release"])), node, "ran on", REPORT)
        return key

    def _labels(self, row: sa.RowMapping | None, model: str, sha256: str, sample: int) -> str:
        """Add the label of an image with its history."""
        changes = learning.label_changes(self.connection, model, sha256)[-_CHANGES:]
        acts = [
            NodeAct(at_ms=one["changed_ms"], by=one["changed_by"], act="sample.label",
                    why=f"{one['label']!r} of {one['label_by']} became {one['new_label'] or 'no label'!r}")
            for one in changes
        ]  # fmt: skip
        label = "" if row is None else str(row["label"] or "")
        if label and row is not None:
            words = f"{label!r} by {row['label_by']}"
            acts.append(NodeAct(at_ms=row["labelled_ms"], by=str(row["label_by"]), act="sample.label", why=label))
        else:
            words = "nobody has labelled it" if not changes else "no label now: it was taken off"
        self.drawing.answers.append(f"Sample {sample}: label {words}." if label else f"Sample {sample}: {words}.")
        return self.drawing.add(LineageNode(
            kind="label", id=str(sample), words=words, facts={"label": label, "changes": len(changes)},
            at_ms=int(row["labelled_ms"]) if row is not None and label else 0, acts=tuple(acts),
        ))  # fmt: skip

    def _was_given(self, labels: str, job: sa.RowMapping, now: str) -> None:
        """Add a job that was given the image, with the label then, and its release."""
        was, by = str(job["given_label"]), str(job["given_by"])
        words = f"given with the label {was!r}" + (f" of {by}" if by else "")
        words += f"; it is {now or 'without one'!r} now" if now != was else ""
        node = self.drawing.add(LineageNode(
            kind="job", id=str(job["id"]), words=words, at_ms=job["created_ms"], link=page_of("job", str(job["id"])),
            facts={"state": job["state"], "label": was, "label_by": by, "watched": bool(job["given_watched"])},
        ))  # fmt: skip
        self.drawing.join(labels, node, "given to", OWN)
        if job["state"] == "done" and job["release"]:
            made = self._bare_release(str(job["release"]))
            self.drawing.join(node, made, "made", WORKER)

    def _learned(self, given: Sequence[sa.RowMapping], sample: int) -> None:
        """Add the releases that were made from those of ``given`` jobs, and where all of them run."""
        direct = [str(row["release"]) for row in given if row["state"] == "done" and row["release"]]
        later = _later(self.connection, direct)
        for name in direct:
            self._descendants(f"release:{name}", name)
        releases = list(dict.fromkeys([*direct, *(str(row["release"]) for row in later)]))
        if not releases:
            self.drawing.answers.append(f"No release was given sample {sample} to learn from.")
            return
        ever = store.ran_counts(self.connection, releases)
        here = Counter[str]()
        for name, _, count in running_counts(self.connection, releases):
            here[name] += count
        for name in releases:
            how = "was given it" if name in direct else "began from a release that was given it"
            words = f"{here[name]} report running {name}, {ever.get(name, 0)} ever did"
            node = self.drawing.add(LineageNode(
                kind="devices", id=name, words=words, facts={"now": here[name], "ever": ever.get(name, 0)},
                link=f"/api/lineage/devices?sample={sample}",
            ))  # fmt: skip
            self.drawing.join(f"release:{name}", node, "ran on", REPORT)
            self.drawing.answers.append(f"{name} {how}: {words}.")

    def _acts(self, kind: str, subject: str) -> tuple[NodeAct, ...]:
        rows = acts_about(self.connection, kind, subject, _ACTS)
        return tuple(
            NodeAct(at_ms=row["at_ms"], by=row["said"] or row["account"], act=row["act"], why=_why(row["data"]))
            for row in rows
        )


def words_of_given(drifted: int, others: int) -> str:
    """Return how many images a job was given, for a sentence."""
    return f"{drifted} images of devices that drifted" + (f" and {others} of others" if others else "")


def _statement(versions: Versions, release: Release) -> tuple[Stated | None, str]:
    """Return what the bundle of ``release`` states, or None and why it can't be read."""
    try:
        return stated(versions.blobs, release.sha256), ""
    except (ServerError, WireError) as error:
        return None, error.code


def _why(data: str) -> str:
    """Return the reason that a person gave for an act, "" for none."""
    try:
        document = parse_json(data.encode())
    except MessageError:
        return ""
    found = document.get("why") or document.get("text") or ""
    return found[:500] if isinstance(found, str) else ""
