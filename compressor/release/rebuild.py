"""Builds a bundle again from its recipe, without a cache, to check that the same inputs give the same bytes.

Decides what is compared (every entry of the bundle) and which lineage explains a difference. Stores nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from compressor.devices.bench import DeviceBench
from compressor.errors import PackageError
from compressor.gates.certificate import STAND_IN
from compressor.progress import Progress
from compressor.recipe.model import Recipe
from compressor.release.regate import certificate_in, open_bundle
from compressor.run.bundles import recipe_digest
from compressor.run.ledger import LooksAt
from compressor.run.pipeline import run_recipe, shortened
from wire.canonical import sha256_hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """Result: bundle entries whose bytes differ, and inputs whose digests differ, by name.

    ``code``: our own judging modules that differ, as named in the certificate.
    """

    release: str
    target: str
    different: tuple[str, ...]
    lineage: tuple[str, ...]
    code: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether all bytes are equal."""
        return not self.different


def rebuild(
    path: Path, recipe: Recipe, progress: Progress | None = None, devices: DeviceBench | None = None
) -> Rebuilt:
    """Return how the bundle at ``path`` differs from the one that ``recipe`` gives now, built without a cache.

    A bundle of a quick run is compared with another quick run. ``devices``: the bench for devices that gates name; they
    measure again.

    Raises:
        PackageError: If the bundle can't be read or is from a stand-in, the recipe has no such target or its gates
            don't pass now.
        CompressorError: As raised by a run.
    """
    bundle = open_bundle(path)
    manifest, certificate = bundle.manifest, certificate_in(bundle, path)
    if STAND_IN in certificate.remarks:
        message = f"Expected a bundle of the recipe's own data, got {path} from its stand-in (--quick)"
        raise PackageError(f"{message}: run the recipe with --data, then rebuild that bundle")
    ran = replace(recipe, model=replace(recipe.model, version=manifest.version))
    quick = recipe_digest(ran) != manifest.lineage.get("recipe") == recipe_digest(shortened(ran))
    if quick and progress is not None:
        progress.say(f"{path.name} is from a quick run: rebuilding it with --quick too")
    with tempfile.TemporaryDirectory(prefix="tinyfleet-rebuild-") as folder:
        looks = LooksAt(path=Path(folder) / "looks.json", again=certificate.seen)
        outcome = run_recipe(
            recipe,
            out=Path(folder),
            version=manifest.version,
            progress=progress,
            quick=quick,
            devices=devices,
            looks=looks,
        )
        made = Path(folder) / f"{manifest.release}-{manifest.target}.tfb"
        if made not in outcome.bundles:
            names = ", ".join(bundle.name for bundle in outcome.bundles) or f"none, verdict {outcome.verdict}"
            message = f"Expected a rebuilt {made.name}, got {names}: is this the bundle's recipe?"
            raise PackageError(message)
        again = open_bundle(made)
    files = [{name: sha256_hex(data) for name, data in one.files.items()} for one in (bundle, again)]
    codes = [one.code_digests for one in (certificate, certificate_in(again, made))]
    lineage = sorted(name for name, digest in manifest.lineage.items() if again.manifest.lineage.get(name) != digest)
    return Rebuilt(
        release=manifest.release,
        target=manifest.target,
        different=_different(*files),
        lineage=tuple(lineage),
        code=_different(*codes),
    )


def _different(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
