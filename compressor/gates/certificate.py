"""The certificate (``gate.json``): measurements, rules and verdicts. Pure.

Decides the document's format and how its verdict is recomputed from it. A bundle's certificate omits what depends on a
host's clock or memory (``kinds.is_timed``): it differs each time and would change the file at every build, and a device
measures it itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from compressor.errors import PackageError
from compressor.gates import AllOf, Evidence, Gate, GateResult, Judgement, MetricEvidence, Verdict
from compressor.gates.evidence import AGREEMENT, SAMPLES, DeviceEvidence, GateRecipe, device_for, more, worst
from compressor.gates.kinds import KINDS, Agreement, GateKind, OnDevice, Place, gate, is_timed, kind_of
from compressor.gates.looks import UNCOUNTED, Look, share_of, times_the_rows
from compressor.statistics.paired import Paired
from wire.canonical import canonical_bytes
from wire.codec import OMIT_DEFAULT, Json, from_document, parse_json, to_document
from wire.errors import MessageError

V = TypeVar("V")
SCHEMA = 1
STAND_IN = "It ran on a stand-in, data generated in the place of its own: no figure says what the model is worth."
"""The remark of a certificate that must not be signed."""
MAX_CERTIFICATE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One gate's result in the certificate; ``value`` and ``bound`` may be missing; ``on`` as in the rule."""

    name: str = ""
    verdict: str = ""
    value: float | None = None
    bound: float | None = None
    limit: float | None = None
    n: int = 0
    text: str = ""
    needs: int = 0
    target: str = ""
    on: str = ""

    @property
    def title(self) -> str:
        """The gate's name, with the device on which it was judged."""
        return f"{self.name} on {self.on}" if self.on else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """One device's measurement in the certificate, or the ``problem`` that prevented it.

    ``counts``, ``figures`` and ``metrics`` as in the certificate; ``facts``: the device as text; ``order``: the
    measurement's id.
    """

    device: str = ""
    problem: str = ""
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, MetricEvidence] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    order: str = ""
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedSite:
    """A site that was not trained on, under the release before and this one.

    ``verdict``: ``pass`` if it is shown to be worse there by less than ``limit``, ``fail`` if it is shown to be worse
    by more; ``drop`` and ``bound`` are of the accuracy, ``n`` independent sources.
    """

    name: str = ""
    verdict: str = ""
    drop: float = 0.0
    bound: float = 0.0
    limit: float = 0.0
    n: int = 0
    text: str = ""

    @classmethod
    def of(cls, name: str, judged: GateResult) -> WatchedSite:
        """Return the site ``name`` with the result of a gate on its drop."""
        return cls(
            name=name, verdict=judged.verdict.value, drop=judged.value or 0.0, bound=judged.bound or 0.0,
            limit=judged.limit, n=judged.n, text=judged.text,
        )  # fmt: skip

    @property
    def harmful(self) -> bool:
        """Whether it is measured to be worse there by more than allowed, shown or not."""
        return self.verdict == Verdict.FAIL or self.drop > self.limit

    @property
    def remark(self) -> str:
        """What a reader must know of a site at which the release is not shown to be harmless."""
        where = "does not go there" if self.harmful else "goes there last"
        return f"Site {self.name!r}, watched and not trained on: {self.text}. A retraining's rollout {where}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The whole certificate.

    ``counts``: the paired counts [lost, won, n] used by the gates, n sources, and a fourth number, of their rows, if
    these are more, by ``accuracy``, ``compressed``, ``drifted``,
    ``slice:<name>``, ``class:<name>``; ``metrics``: bootstrapped metrics by the gate's name, with bounds; ``figures``:
    every measured number by name; ``targets``: for several targets the certificate of each (``rules``, ``counts``,
    ``metrics``, ``figures`` and ``devices`` are then those of the first); ``devices``: measurements of devices on the
    same samples; ``unknown``: why a figure or metric could not be measured, by its name; ``label_order``: the order of
    the labels that would fit best, as text, if its gate failed; ``remarks``: warnings to read first; ``look``: which
    look at the gate split this was, 0 if no gate has a bound, of ``planned_looks`` (0: no plan); ``last_look``: the
    last that the split allows; ``risk_share``: its share of the risk of each gate, from which the confidence in
    ``rules`` follows; ``gate_split``: digest of the split's rows; ``gate_labels``: that of their labels, "" in
    certificates of an older version; ``ledger``: digest of all looks up to this one; ``watched``: sites that were not
    trained on.
    """

    schema: int = SCHEMA
    verdict: str = Verdict.FAIL.value
    model: str = ""
    version: int = 0
    target: str = ""
    baseline: str = ""
    gates: tuple[Line, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    rules: tuple[GateRecipe, ...] = ()
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    metrics: Mapping[str, MetricEvidence] = field(default_factory=dict)
    targets: tuple[Certificate, ...] = ()
    devices: tuple[DeviceRecord, ...] = ()
    code_digests: Mapping[str, str] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    label_order: str = ""
    remarks: tuple[str, ...] = ()
    look: int = field(default=0, metadata=OMIT_DEFAULT)
    planned_looks: int = field(default=0, metadata=OMIT_DEFAULT)
    last_look: int = field(default=0, metadata=OMIT_DEFAULT)
    risk_share: float = field(default=1.0, metadata=OMIT_DEFAULT)
    gate_split: str = field(default="", metadata=OMIT_DEFAULT)
    gate_labels: str = field(default="", metadata=OMIT_DEFAULT)
    ledger: str = field(default="", metadata=OMIT_DEFAULT)
    watched: tuple[WatchedSite, ...] = field(default=(), metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)

    @property
    def seen(self) -> Look:
        """The look at the gate split."""
        return Look(
            number=self.look, planned=self.planned_looks, split=self.gate_split, labels=self.gate_labels,
            ledger=self.ledger,
        )  # fmt: skip

    def at(self, look: Look) -> Certificate:
        """Return this certificate with ``look`` as its look at the gate split."""
        return replace(
            self, look=look.number, planned_looks=look.planned, last_look=look.last, risk_share=look.share,
            gate_split=look.split, gate_labels=look.labels, ledger=look.ledger,
        )  # fmt: skip


def rules_for(
    gates: Sequence[GateRecipe], target: str, *, retrained: bool, timed: bool = True, alone: Sequence[str] = (),
    against: Sequence[str] = (),
) -> tuple[GateRecipe, ...]:  # fmt: skip
    """Return the rules for ``target``; a retrained model must also be better on the drifted samples.

    A gate on a device also applies on this host, except for figures that a host with another processor can't measure
    (``timed`` is then False); and every device must agree with this host. ``alone``: gates on the candidate alone,
    which are added to others; without other gates they are not added. ``against``: the tasks whose gates on a
    comparison with a release apply: on the average, every slice and every class. Those of a retraining alone are left
    out of other runs first, because a recipe without any other would pass unjudged.

    Raises:
        PluginError: If an external gate can't be imported.
    """
    here, there = [], []
    for item in gates:
        device, kind = device_for(item.on, target), kind_of(item.name)
        if item.on in {"", target}:
            here.append(replace(item, on=""))
        if device:
            there.append(replace(item, on=device))
            if kind is None or (kind.place is not Place.DEVICE and (timed or not kind.timed)):
                here.append(replace(item, on=""))
    if not retrained:
        here = [rule for rule in here if rule.name not in KINDS or not KINDS[rule.name].retrained]
    if here or there:
        here += _added(here, [KINDS[name] for name in alone])
    here = [*with_comparisons(here, against)]
    if retrained:
        here += _added(here, [kind for kind in KINDS.values() if kind.retrained])
    devices = dict.fromkeys(rule.on for rule in there)
    return (*here, *there, *(rule for name in devices for rule in agreeing(there, name)))


def with_comparisons(rules: Sequence[GateRecipe], tasks: Sequence[str]) -> tuple[GateRecipe, ...]:
    """Return ``rules`` with those on a comparison with a release that apply to one of ``tasks`` by default."""
    compared = [kind for kind in KINDS.values() if not set(kind.tasks).isdisjoint(tasks)]
    here = [rule for rule in rules if not rule.on]
    return (*rules, *_added(here, [replace(kind, added=kind.against) for kind in compared]))


def agreeing(rules: Sequence[GateRecipe], device: str) -> list[GateRecipe]:
    """Return the gates that apply by default on a ``device`` alone (agreement with this host), if not in ``rules``."""
    of_devices = [kind for kind in KINDS.values() if kind.place is Place.DEVICE]
    return _added([rule for rule in rules if rule.on == device], of_devices, device)


def _added(rules: Sequence[GateRecipe], kinds: Sequence[GateKind], on: str = "") -> list[GateRecipe]:
    """Return the rules of those ``kinds`` that apply by default and have no rule yet."""
    named = {rule.name for rule in rules}
    return [kind.rule(kind.added, on) for kind in kinds if kind.added is not None and kind.name not in named]


def judge(rules: Sequence[GateRecipe], evidence: Evidence, look: Look = UNCOUNTED) -> Judgement:
    """Return the verdicts of the gates of ``rules`` on ``evidence``; a rule without a gate fails.

    ``look``: the look at the gate split that the rules are for. Samples that a gate still needs are for the next look,
    which has less of the risk.
    """
    judged = AllOf([_gate(rule, rules) for rule in rules]).judge(evidence)
    again = share_of(look.number + 1, look.planned) / look.share if look.number else 1.0
    if again in {0.0, 1.0}:
        return judged
    results = []
    for rule, result in zip(rules, judged.results, strict=True):
        needs, risk = result.needs, 1 - rule.confidence
        if needs:
            later = _gate(replace(rule, confidence=1 - risk * again), rules).judge(evidence).needs
            kind = kind_of(rule.name)
            asked = SAMPLES if kind is None else kind.asks
            wanted = result.n + needs if result.by_width is None else result.by_width
            scaled = math.ceil(wanted * times_the_rows(risk, risk * again)) - result.n
            if result.by_width is not None:  # a least number is the same at every look
                scaled = max(needs, scaled)
            needs = later if later > needs else scaled  # a bound that was measured for this look has none for another
            text = result.text.replace(more(result.needs, asked), more(needs, asked))
            results.append(replace(result, needs=needs, text=text))
        else:
            results.append(result)
    return replace(judged, results=tuple(results))


def _gate(rule: GateRecipe, rules: Sequence[GateRecipe]) -> Gate:
    if rule.on and rule.name == AGREEMENT and rule.max is not None:
        both = [_plain_gate(item) for item in rules if item.on == rule.on and item.name != AGREEMENT]
        return Agreement(rule.on, rule.max, both)
    made, limit = _plain_gate(rule), rule.limit
    return (
        OnDevice(gate=made, device=rule.on, name=rule.name, limit=math.nan if limit is None else limit)
        if rule.on
        else made
    )


def _plain_gate(rule: GateRecipe) -> Gate:
    return gate(rule) or _Unknown(rule.name)


@dataclass(frozen=True, slots=True)
class _Unknown:
    name: str

    def judge(self, evidence: Evidence) -> GateResult:
        del evidence
        text = "Expected a gate that this version knows, with its limit, got neither: update the compressor"
        return GateResult(
            name=self.name, verdict=Verdict.FAIL, value=None, bound=None, limit=float("nan"), n=0, text=text
        )


def lines(judgement: Judgement) -> tuple[Line, ...]:
    """Return the results as lines of a certificate."""
    return tuple(
        Line(
            name=result.name,
            verdict=result.verdict.value,
            value=result.value,
            bound=result.bound,
            limit=result.limit if math.isfinite(result.limit) else None,
            n=result.n,
            text=result.text,
            needs=result.needs,
            on=result.on,
        )
        for result in judgement.results
    )


def counts_of(evidence: Evidence) -> dict[str, tuple[int, ...]]:
    """Return the paired counts in ``evidence``, by name."""
    named = {"accuracy": evidence.accuracy, "compressed": evidence.compressed, "drifted": evidence.drifted}
    named |= {f"slice:{name}": counts for name, counts in evidence.slices.items()}
    named |= {f"class:{name}": counts for name, counts in evidence.classes.items()}
    found: dict[str, tuple[int, ...]] = {
        name: (counts.lost, counts.won, counts.n, *([counts.rows] if counts.rows else []))
        for name, counts in named.items()
        if counts is not None
    }
    return found if evidence.flips is None else found | {"flips": (evidence.flips,)}


def evidence_of(certificate: Certificate, figures: Mapping[str, float] | None = None) -> Evidence:
    """Return the evidence in a certificate; ``figures`` (measured again) replace its own.

    Raises:
        PackageError: If a count is malformed.
    """
    said = {item.device: _said(item) for item in certificate.devices}
    measured = {**certificate.figures, **(figures or {})}
    unknown = {name: why for name, why in certificate.unknown.items() if name not in measured}
    return replace(
        _evidence(certificate.counts, measured, certificate.metrics),
        devices=said,
        unknown=unknown,
        label_order=certificate.label_order,
    )


def _said(record: DeviceRecord) -> DeviceEvidence:
    evidence = replace(_evidence(record.counts, record.figures, record.metrics), unknown=record.unknown)
    return DeviceEvidence(problem=record.problem, evidence=evidence, facts=record.facts, order=record.order)


def records_of(evidence: Evidence) -> tuple[DeviceRecord, ...]:
    """Return the devices' measurements in the form of the certificate."""
    return tuple(
        DeviceRecord(
            device=device,
            problem=said.problem,
            counts=counts_of(said.evidence),
            figures=said.evidence.figures,
            metrics=said.evidence.metrics,
            facts=said.facts,
            order=said.order,
            unknown=said.evidence.unknown,
        )
        for device, said in evidence.devices.items()
    )


def _evidence(
    counts: Mapping[str, tuple[int, ...]], figures: Mapping[str, float], metrics: Mapping[str, MetricEvidence]
) -> Evidence:
    try:
        paired = {name: Paired(*values[:3], rows=sum(values[3:])) for name, values in counts.items() if name != "flips"}
        flips = counts["flips"][0] if "flips" in counts else None
    except (TypeError, IndexError) as error:
        message = f"Expected counts [lost, won, n] in gate.json, got {dict(counts)}"
        raise PackageError(message) from error
    return Evidence(
        accuracy=paired.get("accuracy"),
        slices=_group(paired, "slice:"),
        classes=_group(paired, "class:"),
        drifted=paired.get("drifted"),
        compressed=paired.get("compressed"),
        flips=flips,
        figures=figures,
        metrics=metrics,
    )


def _group(paired: Mapping[str, Paired], prefix: str) -> dict[str, Paired]:
    return {name.removeprefix(prefix): counts for name, counts in paired.items() if name.startswith(prefix)}


def guessing(certificate: Certificate) -> list[str]:
    """Warn when accuracy does not exceed the majority class; nothing otherwise, or if it is not a classifier.

    Gates on drops compare it with its origin, which may be equally bad.
    """
    classes = {name.removeprefix("class:"): n[2] for name, n in certificate.counts.items() if name.startswith("class:")}
    accuracy, n = certificate.figures.get("accuracy"), sum(classes.values())
    if accuracy is None or len(classes) < 2 or accuracy > max(classes.values()) / n:  # noqa: PLR2004 - two classes
        return []
    often = max(classes, key=lambda name: classes[name])
    said = f"It is right on {100 * accuracy:.2f} %, no more than the answer {often!r} to everything would be"
    return [f"{said}: look at training, [model] labels and [data] mean and std."]


def for_bundle(certificate: Certificate) -> Certificate:
    """Return the certificate without timed values, so that equal inputs give equal bytes.

    Verdict, limit and rule of a timed gate are kept; its value and text are removed.
    """
    gates = tuple(
        replace(line, value=None, bound=None, text="measured on the build host; a device measures again")
        if is_timed(line.name) and line.value is not None
        else line
        for line in certificate.gates
    )
    devices = tuple(replace(item, figures=_untimed(item.figures), facts={}, order="") for item in certificate.devices)
    unknown = _untimed(certificate.unknown)
    return replace(certificate, gates=gates, figures=_untimed(certificate.figures), devices=devices, unknown=unknown)


def _untimed(figures: Mapping[str, V]) -> dict[str, V]:
    return {name: value for name, value in figures.items() if not is_timed(name)}


def combine(certificates: Sequence[Certificate]) -> Certificate:
    """Return one certificate for all targets: every line with its target, and the worst verdict."""
    first = certificates[0]
    gates = tuple(replace(line, target=item.target) for item in certificates for line in item.gates)
    verdict = worst(item.verdict for item in certificates).value
    if len(certificates) == 1:
        return replace(first, gates=gates, verdict=verdict)
    parts = tuple(replace(item, code_digests={}) for item in certificates)  # the same code judged all of them
    return replace(first, gates=gates, verdict=verdict, target="", targets=parts)


def write_certificate(certificate: Certificate) -> bytes:
    """Return the canonical bytes of ``certificate``."""
    return canonical_bytes(to_document(certificate))


def read_certificate(data: bytes) -> Certificate:
    """Return the certificate in ``data``.

    Raises:
        PackageError: If it can't be decoded or has another schema.
    """
    try:
        certificate = from_document(Certificate, parse_json(data, limit_bytes=MAX_CERTIFICATE_BYTES))
    except MessageError as error:
        message = f"Expected a certificate, got: {error}"
        raise PackageError(message) from error
    if certificate.schema != SCHEMA:
        message = f"Expected a certificate of schema {SCHEMA}, got {certificate.schema}: update the compressor"
        raise PackageError(message)
    return certificate
