"""The tables of a report, as HTML; every text is escaped here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from compressor.gates.certificate import Certificate, Line
from compressor.measurement.noise_figures import LIMIT_DB, MOST_DB, OutputNoise
from compressor.measurement.parity import Pair, find
from compressor.report import phrases
from compressor.report.contents import Layers, Step
from compressor.report.side_by_side import Beside

_MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


def gates(certificate: Certificate) -> str:
    """Return the gates: measured value, bound, limit, and the share of the limit used."""
    judged = certificate.targets or (certificate,)
    at_least = {(item.target, rule.name) for item in judged for rule in item.rules if rule.min is not None}
    several = len(judged) > 1
    rows = [
        _gate(line, at_least=(line.target or certificate.target, line.name) in at_least, several=several)
        for line in certificate.gates
    ]
    columns = ("gate", "", "measured", "bound", "limit", "limit used", "why")
    return _table(columns, rows, numbers=(2, 3, 4))


def _gate(line: Line, *, at_least: bool, several: bool) -> list[str]:
    sign = "≥" if at_least else "≤"
    where = f" <small>{escape(line.target)}</small>" if several else ""
    where += f" <small>on {escape(line.on)}</small>" if line.on else ""
    badge = f'<span class="mark {escape(line.verdict)}">{_MARKS.get(line.verdict, "?")} {escape(line.verdict)}</span>'
    bound = "" if line.bound == line.value else phrases.figure(line.name, line.bound)
    share, meter = phrases.used(line, at_least=at_least), ""
    if share is not None:
        bar = f'<i class="{escape(line.verdict)}" style="width:{min(100.0, 100 * share):.0f}%"></i>'
        meter = f'<div class="meter" title="{share:.0%}">{bar}</div>'
    limit = f"{sign} {phrases.figure(line.name, line.limit)}" if line.limit is not None else phrases.NOTHING
    return [
        f"<b>{escape(line.name)}</b>{where}", badge, phrases.figure(line.name, line.value), bound, limit,
        meter, f'<span class="muted">{escape(line.text)}</span>',
    ]  # fmt: skip


def parity(pairs: Sequence[Pair]) -> str:
    """Return the pairwise comparison of the model's forms: differences above, flips below the diagonal."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)))
    rows = [
        [f"<b>{escape(row)}</b>", *(_cell(pairs, (row, column), above=j > i) for j, column in enumerate(names))]
        for i, row in enumerate(names)
    ]
    note = "above the diagonal: largest difference of logits and lowest cosine; below: predictions that flip"
    if all(math.isnan(pair.flip_ratio) for pair in pairs):
        note = "above the diagonal: largest difference of values, and their lowest correlation"
    return f'{_table(("", *names), rows, numbers=range(1, 9))}<p class="muted">{note}</p>'


def _cell(pairs: Sequence[Pair], places: tuple[str, str], *, above: bool) -> str:
    pair = find(tuple(pairs), *places) if places[0] != places[1] else None
    if pair is None:
        return "·"
    if not above:
        return phrases.percent(pair.flip_ratio) if not math.isnan(pair.flip_ratio) else ""
    return f"{pair.max_abs:.2g}<br><small>cos {pair.cosine:.5f}</small>"


def layers(found: Layers) -> str:
    """Return the first diverging layer of two forms, highlighted if they disagree overall."""
    said = f"<b>First diverging layer</b> ({escape(found.target)}): {escape(found.text)}"
    return f'<p class="{"warned" if found.suspicious else "muted"}">{said}</p>'


def noise(found: Mapping[str, Sequence[OutputNoise]]) -> str:
    """Return the noise of int8 at each output of each target, and the range and levels of its values."""
    rows = [
        [
            f"{escape(target)}",
            escape(one.name),
            f'<span class="mark {"inconclusive" if one.noisy else "pass"}">{_decibels(one.sqnr_db)}</span>',
            f"{one.low:.3g} to {one.high:.3g}",
            f"{one.levels:,}",
        ]
        for target, outputs in found.items()
        for one in outputs
    ]
    names = ("target", "output", "signal to noise", "range in float", "values in int8")
    note = (
        '<p class="muted">Float against compressed file of the same runtime, before boxes are made. Below '
        f"{LIMIT_DB:g} dB noise is more than a tenth of the signal; few different values of scores make ties.</p>"
    )
    return _table(names, rows, numbers=range(2, 5)) + note


def _decibels(value: float) -> str:
    return "equal" if value >= MOST_DB else f"{value:.1f} dB"


def steps(made: Sequence[Step], measure: str) -> str:
    """Return the cost of each step in ``measure`` and its gain in work and size, then all its notes, folded."""
    rows = [
        [
            f"<b>{escape(step.name)}</b> <small>{escape(step.remark)}</small>",
            " → ".join(step.score) if step.score else phrases.NOTHING,
            _change(step.macs, phrases.count),
            _change(step.parameters, phrases.count),
            _change(step.size_bytes, _size),
        ]
        for step in made
    ]  # fmt: skip
    table = _table(("step", f"{measure} on search rows", "MACs", "parameters", "bytes"), rows, numbers=range(1, 5))
    noted = {f"{step.name}: {name}": text for step in made for name, text in step.notes.items()}
    folded = f"<details><summary>All that the steps noted</summary>{pairs(noted)}</details>" if noted else ""
    return f"{table}{folded}"


def _size(value: float) -> str:
    return phrases.figure("size_bytes", value)


def _change(change: tuple[float, float] | None, said: Callable[[float], str]) -> str:
    return phrases.NOTHING if change is None else f"{said(change[0])} → {said(change[1])}"


def tiles(first: Sequence[tuple[str, str, str]], figures: Mapping[str, float]) -> str:
    """Return the most important figures: ``first``, then size, latency and the share of int8."""
    latency = f"{figures.get('float_latency_p50_ms', 0):.3f} → {figures.get('latency_p50_ms', 0):.3f} ms, one image"
    size = f"{figures.get('float_size_bytes', 0) / 1000:.1f} → {figures.get('size_bytes', 0) / 1000:.1f} kB"
    smaller = phrases.times(figures.get("float_size_bytes"), figures.get("size_bytes"), ("smaller", "larger"))
    faster = phrases.times(figures.get("float_latency_p50_ms"), figures.get("latency_p50_ms"), ("faster", "slower"))
    shown = [
        *first,
        ("size", smaller, size),
        ("latency p50", faster, latency),
        ("done in int8", phrases.percent(figures.get("int8_macs_ratio")), "of multiplications, after the optimiser"),
    ]  # fmt: skip
    cells = (f"<div><span>{escape(a)}</span><b>{escape(b)}</b><span>{escape(c)}</span></div>" for a, b, c in shown)
    return f'<div class="tiles">{"".join(cells)}</div>'


_TARGET_FIGURES = ("size_bytes", "latency_p50_ms", "speed_up_ratio", "int8_macs_ratio")


def targets(certificates: Sequence[Certificate], headline: Sequence[str]) -> str:
    """Return one line per target: its verdict and the figures for comparison, those of ``headline`` first."""
    names = (*headline, *_TARGET_FIGURES)
    rows = [
        [
            f"<b>{escape(item.target)}</b>",
            f'<span class="mark {escape(item.verdict)}">{escape(item.verdict)}</span>',
            *(phrases.figure(name, item.figures.get(name)) for name in names),
        ]
        for item in certificates
    ]
    return _table(("target", "", *(name.replace("_", " ") for name in names)), rows, numbers=range(2, 2 + len(names)))


def devices(found: Sequence[Beside]) -> str:
    """Return the measurements of each device beside this host's, and whether they agree."""
    made = []
    for one in found:
        rows = [[escape(what), escape(there), escape(here)] for what, there, here in one.rows]
        name = escape(f"{one.device} ({one.target})" if one.target else one.device)
        table = _table((name, "on the device", "on this host"), rows, numbers=(1, 2)) if rows else f"<b>{name}</b>"
        made.append(f'{table}<p class="muted">{escape(one.said)}</p>')
    return "".join(made)


def pairs(rows: Mapping[str, str], *, digests: bool = False) -> str:
    """Return names with texts, or names with digests, in full."""
    tag = "code" if digests else "span"
    shown = [[escape(name.replace("_", " ")), f"<{tag}>{escape(text)}</{tag}>"] for name, text in rows.items()]
    return _table(("", ""), shown)


def figures(certificate: Certificate) -> str:
    """Return every figure by name."""
    rows = [[escape(name), phrases.figure(name, value)] for name, value in sorted(certificate.figures.items())]
    rows += [[escape(name), f"unknown: {escape(why)}"] for name, why in sorted(certificate.unknown.items())]
    return _table(("figure", "measured"), rows, numbers=(1,))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> str:
    right = set(numbers)

    def line(cells: Sequence[str], tag: str) -> str:
        made = (f"<{tag}{' class=n' if i in right else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{''.join(made)}</tr>"

    head = line([escape(column) for column in columns], "th") if any(columns) else ""
    return f'<div class="scroll"><table>{head}{"".join(line(row, "td") for row in rows)}</table></div>'
