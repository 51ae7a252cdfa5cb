"""The verdict in sentences, and figures in readable form. Pure text, no HTML."""

from __future__ import annotations

from collections.abc import Mapping

from compressor.gates.certificate import Certificate, Line, guessing
from compressor.gates.evidence import SAMPLES, sure
from compressor.gates.kinds import KINDS, text_of
from compressor.report.contents import Bar, Changes, Shown

NOT_MEASURED = "not measured"
NOTHING = "\N{EN DASH}"
_TIMES = "\N{MULTIPLICATION SIGN}"


def headline(certificate: Certificate) -> str:
    """Return the verdict as one sentence."""
    name = f"{certificate.model}-{certificate.version}"
    lines = [line for line in certificate.gates if line.verdict != "pass"]
    if certificate.verdict == "pass":
        return f"{name} passed all {len(certificate.gates)} gates and may be signed."
    names = ", ".join(dict.fromkeys(line.title for line in lines if line.verdict == certificate.verdict))
    if certificate.verdict == "inconclusive":
        most = max(lines, key=lambda line: line.needs)
        needs, kind = most.needs, KINDS.get(most.name)
        kinds = [KINDS.get(line.name) for line in lines]
        labelled = SAMPLES if kind is None else kind.asks
        samples = labelled if any(kind is None or kind.labelled for kind in kinds) else "samples"
        more = f"about {needs:,} more {samples} would decide it" if needs else f"more {samples} are needed"
        return f"{name} is not shown to be good enough yet: {names}; {more}. It is not signed."
    if not certificate.gates:
        return f"{name} has no gates, so that nothing was shown. It is not signed."
    return f"{name} failed {names or 'its gates'}. It is not signed."


def sentences(shown: Shown) -> list[str]:
    """Return the results of the run as sentences, most important first."""
    certificate, several = shown.certificate, len(shown.targets) > 1
    start = shown.lineage.get("float_model")  # a target whose file is the baseline itself is unchanged
    same = [one.target for one in shown.targets if start and shown.lineage.get(f"artifact_{one.target}") == start]
    said = _drifted(shown)
    for judged in shown.targets or (certificate,):
        where = f"On {judged.target}: " if several else ""
        gain = [] if judged.target in same else _gain(judged.figures)
        told = [*judged.remarks, *guessing(judged), *_drop(judged), *_increase(judged), *gain]
        said += [where + " ".join(told)] if several and told else told
    if same:
        said.append(
            f"Nothing was compressed for {', '.join(same)}: it is the very file it is compared with, so that gates of "
            "drops and flips say nothing of it."
        )
    refused = []
    for line in certificate.gates:
        if line.verdict != "pass":
            where = f" on {line.target}" if several and line.target else ""
            refused.append(f"{line.title}{where}: {line.text}.")
    return [*refused, *said]


def _drifted(shown: Shown) -> list[str]:
    bars = [bar for bar in shown.drifted if isinstance(bar, Bar)]
    if len(bars) < 2:  # noqa: PLR2004 - before and after
        return []
    before, after = bars[0], bars[-1]
    said = f"On {after.n} held-out images of the drifted sites it is right on {after.percent:.1f} %"
    return [f"{said}, where {before.name} was right on {before.percent:.1f} %."]


def _drop(certificate: Certificate) -> list[str]:
    counts = certificate.counts.get("accuracy")
    upper = certificate.figures.get("drop_upper")
    if counts is None or upper is None:
        return []
    lost, won, n = counts[:3]
    at_most = "does not lose accuracy" if upper <= 0 else f"loses at most {100 * upper:.2f} points"
    said = f"Against {certificate.baseline}, with 95 % confidence it {at_most}"
    return [f"{said} (of {n:,} images {lost} got worse and {won} better)."]


def _increase(certificate: Certificate) -> list[str]:
    found = certificate.metrics.get("error_increase")
    if found is None:
        return []
    at_most = "does not grow" if found.upper <= 0 else f"grows by at most {found.upper:.4g}"
    said = f"Against {certificate.baseline}, with {sure(found.confidence)} confidence its mean absolute error {at_most}"
    return [f"{said} (from {found.baseline:.4g} to {found.candidate:.4g} on {found.n:,} samples)."]


def _gain(figures: Mapping[str, float]) -> list[str]:
    size = times(figures.get("float_size_bytes"), figures.get("size_bytes"), ("smaller", "larger"))
    speed = times(figures.get("float_latency_p50_ms"), figures.get("latency_p50_ms"), ("faster", "slower"))
    if NOT_MEASURED in {size, speed}:
        return [] if size == NOT_MEASURED else [f"The compressed model is {size} than float."]
    why = " (this host is no guide for others: int8 gains speed on ARM and on x86 with VNNI)" if "slow" in speed else ""
    return [f"The compressed model is {size} and {speed} than float on this host{why}."]


def times(before: float | None, after: float | None, words: tuple[str, str]) -> str:
    """Return how many times smaller (first word) or larger (second word) ``after`` is than ``before``."""
    if not before or not after:
        return NOT_MEASURED
    return (
        f"{before / after:.2f} {_TIMES} {words[0]}" if after <= before else f"{after / before:.2f} {_TIMES} {words[1]}"
    )


def flips(changes: Changes) -> str:
    """Return how many inputs compression flipped, and in which direction."""
    images = f"{changes.n:,} images of the gate split"
    if not changes.flips:
        return f"Nothing flipped on {changes.target}: float and compressed model say the same of all {images}."
    other = changes.flips - changes.lost - changes.won
    said = f"{changes.lost} got worse, {changes.won} got better, {other} changed from one mistake to another"
    shown = f" The first {len(changes.first)} are shown." if len(changes.first) < changes.flips else ""
    return f"{changes.flips} of the {images} flipped on {changes.target}: {said}.{shown}"


def count(value: float) -> str:
    """Return a count with three digits: 12,345,678 is 12.3 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:,.6g}"


def percent(value: float | None) -> str:
    """Return a ratio in per cent."""
    return NOT_MEASURED if value is None else f"{100 * value:.2f} %"


def figure(name: str, value: float | None) -> str:
    """Return the figure ``name`` with its unit."""
    return NOTHING if value is None else text_of(name, value)


def used(line: Line, *, at_least: bool) -> float | None:
    """Return the share of a gate's limit that is used, 1 at the limit, more beyond; None if it is not defined."""
    reached = line.bound if line.bound is not None else line.value
    if reached is None or line.limit is None:
        return None
    part, whole = (line.limit, reached) if at_least else (reached, line.limit)
    return max(0.0, part / whole) if whole > 0 else None


def short(label: str, characters: int = 26) -> str:
    """Return a long name as its beginning and end, so that names with the same beginning differ."""
    keep = characters // 2
    return label if len(label) <= characters else f"{label[:keep]}…{label[-keep:]}"
