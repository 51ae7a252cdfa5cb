"""A bundle judged against the release that devices run now, and the rows on which the two models disagree.

Decides which releases can be compared at all, and what is replaced in the certificate: the gates on drops are judged
on the predictions of both artifacts for the gate split of a recipe's data; what needs the float model stays as it was
recorded. Rows on which both models agree can't change the difference of their accuracies, labelled or not: that is why
those on which they disagree are worth a label.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compressor.cache import write_atomically
from compressor.data._table import Table, make_table
from compressor.errors import DataError, PackageError, TrustError
from compressor.gates import certificate as certificates
from compressor.gates.certificate import Certificate
from compressor.gates.evidence import GateRecipe
from compressor.gates.kinds import KINDS, kind_of, risks_of
from compressor.gates.kinds import measured as measured_by
from compressor.gates.looks import UNCOUNTED, is_remark, split_of
from compressor.measurement.predictions import Candidate, Compared
from compressor.progress import Progress
from compressor.recipe.model import Recipe
from compressor.release.regate import certificate_in, judged_again, measured_here, open_bundle
from compressor.release.verify import verify_bundle
from compressor.run.comparison import answers, as_tsv, check_comparable, check_compares, check_draw, disagreements
from compressor.run.ledger import LooksAt, gate_labels
from compressor.run.pipeline import looked, material_of, opened
from compressor.run.stages import Form, Models, Run, table_digest
from edge_agent.errors import ImageError
from edge_agent.inference.preprocess import MAX_IMAGE_BYTES, decode_image
from edge_agent.pictures import sixteen_bits
from wire.bundle import REFERENCE, Bundle
from wire.reference import read_reference

_PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
_MOST_PICTURES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """The release ``old``, and the ``recipe`` whose gate split judges; ``keys``: the folder whose signature it has.

    ``disagreements``: a file for the rows that the two models answer differently, None: none. ``unlabelled``: a folder
    of pictures without labels, whose rows are listed too.
    """

    old: Path
    recipe: Recipe
    keys: Path | None = None
    disagreements: Path | None = None
    unlabelled: Path | None = None


def gate_against(path: Path, asked: Against, progress: Progress) -> Certificate:
    """Return the certificate of the bundle at ``path``, judged again with ``asked.old`` as its baseline.

    Raises:
        PackageError: If a file is not a bundle, or the two can't be compared.
        DataError: If the recipe's data can't be used, or are of other classes.
        MeasureError: If an artifact can't be run here.
        SplitError: If all planned looks at the gate split are used up, or the same data are drawn otherwise.
        LedgerError: If the ledger of looks can't be read or written.
        TrustError: If the release has no signature by ``asked.keys``, or not a right one.
    """
    if path.is_dir():
        message = f"Expected a bundle to compare with {asked.old}, got the folder {path}: give its .tfb file"
        raise PackageError(message)
    new, old = open_bundle(path), open_bundle(asked.old)
    read = certificate_in(new, path)
    if new.manifest.artifact_sha256 == old.manifest.artifact_sha256:
        message = f"Expected two different models, got that of {old.manifest.release} twice"
        raise PackageError(f"{message}: give the bundle that devices run as --against")
    if asked.keys is not None and verify_bundle(asked.old, asked.keys).signature is None:
        message = f"Expected {old.manifest.release} among the releases that {asked.keys} signed, got none of this name"
        raise TrustError(f"{message}: give the folder of its keys, or leave --keys out")
    with tempfile.TemporaryDirectory(prefix="tinyfleet-against-") as folder:
        kept = path.parent if (path.parent / "cache").is_dir() else Path(folder)
        run = replace(opened(asked.recipe, kept, progress), before=old)
        for bundle in (new, old):
            check_comparable(bundle, run)
        run = replace(run, material=material_of(run, None, None))
        return _judged(path, run, (new, old), read, asked)


def _judged(path: Path, run: Run, bundles: tuple[Bundle, Bundle], read: Certificate, asked: Against) -> Certificate:
    new, old = bundles
    check_compares(run.recipe.gates, run)
    form = Form(candidate=Candidate(new.manifest, new.artifact))
    run = replace(run, models=Models(compressed={new.manifest.target: form}))
    plain, recorded = _rules(run, read, new.manifest.target)
    rows = run.rows("gate")
    split, labels = split_of(rows.hashes.tolist()), gate_labels(rows)
    same = read.gate_split == split and read.gate_labels in {"", labels}  # then it is its own look, in every folder
    for bundle in bundles:
        check_draw(run, bundle)
    looks_at = LooksAt(path=path.parent / "looks.json", again=read.seen if same else UNCOUNTED)
    look = looked(run, looks_at, plain)
    here = look.rules(plain)
    rules = (*here, *recorded)
    gate_set = _compared(run, rows, bundles)
    judging, names = run.task.judging, run.table.class_names
    figures = judging.figures(gate_set, None)
    evidence = judging.evidence(gate_set, names, figures, None, here).beside(measured_by(here, gate_set, look.share))
    counts = certificates.counts_of(replace(evidence, compressed=None, flips=None, drifted=None))
    differ = judging.differs(gate_set.candidate, gate_set.baseline, 0.0)
    own = {name: value for name, value in {**figures, **evidence.figures}.items() if not name.startswith("float_")}
    own |= {**judging.compared_figures(evidence), "release_flip_ratio": float(differ.mean())}
    remarks = [
        *(remark for remark in read.remarks if not is_remark(remark)),  # of a look: this one has its own
        f"Against {old.manifest.release}: other answers on {int(differ.sum())} of {len(rows)} rows.",
    ]
    if said := look.remark(*risks_of(plain)):
        remarks.append(said)
    data = table_digest(run.table)
    remarks += [
        f"{bundle.manifest.release} was made from other data than the recipe's: if it was trained on rows of this gate "
        "split, they flatter it."
        for bundle in bundles
        if bundle.manifest.lineage.get("data") != data
    ]
    if asked.disagreements is not None:
        listed = disagreements(rows, gate_set, run)
        if asked.unlabelled is not None:
            pictures = _unlabelled(asked.unlabelled, run)
            listed += disagreements(pictures, _compared(run, pictures, bundles), run, labelled=False)
        write_atomically(asked.disagreements, as_tsv(listed))
    kept = {name: value for name, value in read.counts.items() if name in {"compressed", "flips", "drifted"}}
    certificate = replace(
        read.at(look), baseline=old.manifest.release, rules=rules, counts={**kept, **counts},
        remarks=tuple(dict.fromkeys(remarks)),
        metrics={**read.metrics, **evidence.metrics}, figures={**read.figures, **own},
        unknown={**read.unknown, **evidence.unknown},
    )  # fmt: skip
    return judged_again(certificate, measured_here(new))


def _rules(run: Run, read: Certificate, target: str) -> tuple[tuple[GateRecipe, ...], tuple[GateRecipe, ...]]:
    """Return the rules that are judged on the gate rows here, at the whole risk, and those on what ``read`` recorded.

    The limits of the recipe come first, and which gates with a bound judge these rows is for the recipe alone: a bundle
    must not bring wider limits with it. Of flips the certificate has the counts, at the share of its own look. Other
    rules stay as in the certificate.
    """
    asked = certificates.rules_for(run.recipe.gates, target, retrained=False, against=run.task.gates)
    own = [rule for rule in asked if not rule.on]
    here = [rule for rule in own if (kind := kind_of(rule.name)) is not None and not kind.recorded]
    flips = [replace(rule, confidence=1 - (1 - rule.confidence) * read.risk_share) for rule in own if rule not in here]
    named = {rule.name for rule in own}
    kept = [
        rule
        for rule in read.rules
        if rule.on
        or (rule.name not in named and ((kind := KINDS.get(rule.name)) is None or not kind.bounded or kind.recorded))
    ]
    return tuple(here), (*flips, *kept)


def _compared(run: Run, rows: Table, bundles: tuple[Bundle, Bundle]) -> Compared:
    before, after = (
        replace(answers(run, one.manifest.release, Candidate(one.manifest, one.artifact), rows), fitted=_fitted(one))
        for one in reversed(bundles)
    )
    return Compared(
        labels=rows.labels, slices=rows.slices, baseline=before, float_model=before, candidate=after,
        sources=rows.sources, interval_s=run.recipe.alarm.interval_s, gap_s=run.recipe.alarm.gap_s,
    )  # fmt: skip


def _fitted(bundle: Bundle) -> float:
    """Return the number that a task fitted on calibration rows, such as the threshold that its devices answer by."""
    return read_reference(bundle.files[REFERENCE]).temperature if REFERENCE in bundle.files else 1.0


def _unlabelled(folder: Path, run: Run) -> Table:
    """Return the pictures in ``folder``, decoded as on a device, with a label that means nothing."""
    pre = run.preprocessing
    if pre.front_end:
        message = f"Expected a recipe of pictures with --unlabelled, got the front end {pre.front_end!r}"
        raise DataError(f"{message}: leave --unlabelled out")
    suffixes = sixteen_bits.SUFFIXES if pre.deep else _PICTURES
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not 0 < len(paths) <= _MOST_PICTURES:
        message = f"Expected 1 to {_MOST_PICTURES} pictures in {folder}, got {len(paths)}"
        raise DataError(f"{message}: {', '.join(sorted(suffixes))} are read, also from its folders")
    images = []
    for path in paths:
        if path.stat().st_size > MAX_IMAGE_BYTES:
            message = f"Expected pictures of at most {MAX_IMAGE_BYTES} bytes, got {path.stat().st_size} in {path}"
            raise DataError(f"{message}: make it smaller, or take it out of the folder")
        try:
            images.append(decode_image(path.read_bytes(), pre))
        except ImageError as error:
            raise DataError(f"Expected a picture in {path}, got: {error}: take it out of the folder") from error
    count = len(images)
    table = make_table(images, [run.table.class_names[0]] * count, slices=["unlabelled"] * count)
    named = replace(table, class_names=run.table.class_names, task=run.table.task)
    return replace(named, names=np.array([str(path.relative_to(folder)) for path in paths], dtype=np.str_))
