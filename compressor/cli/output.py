"""Output of the command line for people: gates, targets, sizes, verification results. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wire.codec import to_document

if TYPE_CHECKING:
    from compressor.gates.certificate import Certificate
    from compressor.release.rebuild import Rebuilt
    from compressor.release.verify import Verified


def print_verified(verified: Verified) -> None:
    """Print digests, lineage, signature and missing entries."""
    floor = f", security floor {verified.security_floor}" if verified.security_floor else ""
    click.echo(f"{verified.release} for {verified.target}: verdict {verified.verdict}{floor}")
    for name, digest in [*verified.digests.items(), *verified.lineage.items()]:
        click.echo(f"  {digest:<64}  {name}")
    if verified.signature is not None:
        signature = verified.signature
        click.echo(f"  signed as {signature.path}, targets {signature.targets_version}, expires {signature.expires}")
    for name in verified.missing:
        click.echo(f"  missing: {name}")
    whole = "complete: all digests are right, golden vectors agree, the verdict follows from its numbers"
    click.echo(whole if verified.complete else "not complete")


_ROWS = (
    ("accuracy", "accuracy", "{:.4f}"),
    ("mean error", "mae", "{:.4g}"),
    ("size, bytes", "size_bytes", "{:.0f}"),
    ("latency p50, ms", "latency_p50_ms", "{:.3f}"),
    ("latency p95, ms", "latency_p95_ms", "{:.3f}"),
)
_SCORES = (("accuracy", "accuracy", ".4f"), ("error", "mae", ".4g"))
_CODE_SHOWN = 4
_MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


def print_outcome(
    certificate: Certificate,
    paths: Sequence[Path],
    *,
    as_json: bool,
    targets: Sequence[Certificate] = (),
    missing: str = "",
) -> None:
    """Print gates, sizes (one line per target if there are several), files and the verdict; or one JSON object.

    ``missing``: what a run that does not pass has not made, and what to do; printed unless the verdict is a pass.
    """
    if as_json:
        click.echo(json.dumps({**to_document(certificate), "files": [str(path) for path in paths]}, sort_keys=True))
        return
    from compressor.gates.certificate import guessing  # noqa: PLC0415 - the command line starts fast

    for line in certificate.gates:
        where = f" [{line.target}]" if line.target else ""
        click.echo(f"{_MARKS.get(line.verdict, ' ')} {line.title + where:<30} {line.verdict:<13} {line.text}")
    if not certificate.gates:
        click.echo("✗ no gates: nothing was judged, so that nothing passes: write what must hold into [gates]")
    several = targets or (certificate,)
    remarks = [sentence for item in several for sentence in guessing(item)]
    for item in several:
        where = f"{item.target}: " if len(targets) > 1 else ""
        remarks += [f"{where}{said}" for said in (*item.remarks, *slower(item))]
    for said in dict.fromkeys(remarks):
        click.echo(f"! {said}")
    for name, why in {pair: None for item in several for pair in item.unknown.items()}:
        click.echo(f"  {name}: unknown: {why}")
    if len(targets) > 1:
        print_targets(targets)
    else:
        print_sizes(certificate.figures)
    print_devices(certificate)
    for path in paths:
        click.echo(f"  {path}")
    if note := _not_published(several) if certificate.verdict == "pass" else missing:
        click.echo(f"  {note}")
    click.secho(f"{certificate.model}-{certificate.version}: {certificate.verdict.upper()}", bold=True)


def _not_published(certificates: Sequence[Certificate]) -> str:
    """Return that bundles of a stand-in are refused later, and the way to others; "" for the recipe's own data."""
    from compressor.gates.certificate import STAND_IN  # noqa: PLC0415 - the command line starts fast

    if not any(STAND_IN in item.remarks for item in certificates):
        return ""
    return (
        "not to be published: it is from a stand-in, and compressor publish refuses that: run it with --data and the "
        "data that [data] needs describes"
    )


def no_bundle(certificate: Certificate, *, quick: bool = False) -> str:
    """Return that a run made no bundle, the gates for which, and what to do; ``quick``: it trained two epochs alone."""
    names = list(dict.fromkeys(line.name for line in certificate.gates if line.verdict == certificate.verdict))
    gates = f" ({', '.join(names)})" if names else ""
    if certificate.verdict == "inconclusive":
        step = "give the gates more rows, as said above"
    else:
        step = "mend what is marked ✗, or allow it in [gates]"
    step = f"run it without --quick, which trains two epochs alone; if it is still so, {step}" if quick else step
    return f"no bundle was made: {certificate.verdict}{gates}: {step}"


def slower(certificate: Certificate) -> list[str]:
    """Return a remark if the compressed model is slower than the float one on this host; else nothing."""
    times = certificate.figures.get("speed_up_ratio", 1.0)
    same = certificate.figures.get("size_ratio") == 1
    if times >= 1 or same:
        return []
    kind = "int8" if certificate.figures.get("int8_macs_ratio", 0.0) > 0 else "The compressed model"
    return [f"{kind} is slower than float here: {1 / times:.2f} x the time (other processors may differ)."]


def print_targets(certificates: Sequence[Certificate]) -> None:
    """Print the result of every target, compared with the float model."""
    held = [score for score in _SCORES if any(score[1] in item.figures for item in certificates)]
    what, name, digits = held[0] if held else ("", "", "")
    click.echo(f"  {'target':<14}{'verdict':<14}{what:>9}{'bytes':>10}{'smaller':>9}{'p50 ms':>9}{'faster':>9}")
    for item in certificates:
        figures = item.figures
        smaller = f"{1 / figures['size_ratio']:.2f} x" if figures.get("size_ratio") else "-"
        faster = f"{figures['speed_up_ratio']:.2f} x" if "speed_up_ratio" in figures else "-"
        score = format(figures[name], digits) if name in figures else "-"
        p50 = f"{figures['latency_p50_ms']:.3f}" if "latency_p50_ms" in figures else "-"
        click.echo(
            f"  {item.target:<14}{item.verdict:<14}{score:>9}{figures['size_bytes']:>10.0f}"
            f"{smaller:>9}{p50:>9}{faster:>9}"
        )


def print_sizes(figures: Mapping[str, float]) -> None:
    """Print accuracy (or error), size and latency of float and compressed model, if they were measured."""
    known = [(title, name, form) for title, name, form in _ROWS if {name, f"float_{name}"} <= figures.keys()]
    if known:
        click.echo(f"  {'':<18}{'float':>12}{'compressed':>12}")
    for title, name, form in known:
        click.echo(f"  {title:<18}{form.format(figures[f'float_{name}']):>12}{form.format(figures[name]):>12}")


def print_devices(certificate: Certificate) -> None:
    """Print the measurements of each device beside those of this host."""
    from compressor.report.side_by_side import beside  # noqa: PLC0415 - the command line starts fast

    for one in beside(certificate):
        name = f"{one.device} ({one.target})" if one.target else one.device
        click.echo(f"  {name:<18}{'on device':>12}{'on this host':>14}" if one.rows else f"  {name}")
        for what, there, here in one.rows:
            click.echo(f"  {what:<18}{there:>12}{here:>14}")
        click.echo(f"  {one.said}")


def print_rebuilt(rebuilt: Rebuilt) -> None:
    """Print whether the same recipe gave the same bytes, or what differs and why."""
    if rebuilt.same:
        click.echo("rebuilt: every byte is the same")
        return
    because = f"; other inputs: {', '.join(rebuilt.lineage)}" if rebuilt.lineage else "; the inputs were the same"
    if rebuilt.code:
        more = f" and {len(rebuilt.code) - _CODE_SHOWN} more" if len(rebuilt.code) > _CODE_SHOWN else ""
        because += f"; other code of ours: {', '.join(rebuilt.code[:_CODE_SHOWN])}{more}"
    click.echo(f"rebuilt: other bytes in {', '.join(rebuilt.different)}{because}")
