"""What the pages of releases show, as values; ``tests/browser`` has the pages themselves."""

from __future__ import annotations

from typing import Any

import pytest

from server.dashboard.drawing.gates import change_bar, gate_bar
from server.dashboard.pages.release.all_releases import listed
from server.dashboard.release.views import release_view
from server.dashboard.views import Tone
from server.errors import CursorRefusedError
from server.registry.statements import stated
from server.store.registry import RELEASES
from wire.bundle import CARD, CERTIFICATE, build_bundle
from wire.canonical import canonical_bytes, sha256_hex
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.tuf_target import TargetCustom, target_path

from .conftest import CERTIFICATE_DOCUMENT, Loop, person, publish


def test_a_release_shows_gates_slices_places_and_rollouts(loop: Loop) -> None:
    """With bounds and limits, the slice that got worst first, and links to the devices."""
    view = release_view(loop.fleet.app.parts, "digits-2")
    (target,) = view.targets.rows
    assert [(gate.title, gate.verdict.tone, gate.figures) for gate in target.gates.rows] == [
        ("accuracy_drop", Tone.GOOD, "measured 0.001, bound 0.004, limit 0.01, n 900"),
        ("artifact_bytes", Tone.GOOD, "measured 90000, limit 100000"),
    ]
    assert [(row.name, row.text) for row in target.slices.rows] == [
        ("west", "+0.67 points: 2 lost, 0 won of 300"), ("east", "-0.17 points: 1 lost, 2 won of 600"),
    ]  # fmt: skip
    assert [(link.href, count) for link, count in view.sites.rows] == [("/?release=digits-2&site=berlin", 1)]
    assert (view.now, view.ever, view.signs, view.withdrawn) == (1, 1, (), "")
    assert [one.id for one in view.rollouts] == [loop.rollouts[1]]
    assert dict(view.steps)["labels"].text == "known"
    assert ("latency", "no limit; what a device needs is on its page") in target.facts


def test_what_is_wrong_and_what_is_missing_is_said(loop: Loop) -> None:
    """A withdrawal, parts that the bundle lacks, and a bundle that is gone."""
    parts = loop.fleet.app.parts
    digest = publish(parts.versions, 9, bare=True)
    parts.withdrawal.withdraw("digits-9", "mislabelled", by=person("anna"))
    view = release_view(parts, "digits-9")
    assert view.withdrawn.endswith("by anna: mislabelled")
    assert view.targets.rows[0].missing == ("reference.bin", "golden.npz", "gate.json", "mlbom.cdx.json", "card.md")
    assert dict(view.steps)["gates"].tone is Tone.WARN
    stated.cache_clear()
    parts.versions.blobs.path(digest).write_bytes(b"damaged")
    assert release_view(parts, "digits-9").targets.rows[0].problem.startswith("[bundle")


def strange(document: dict[str, Any], card: bytes) -> bytes:
    """Return a bundle with any certificate and card."""
    manifest = Manifest(
        model="odd", version=1, target="gateway", inputs=(TensorSpec(name="x"),), outputs=(TensorSpec(name="y"),),
        preprocessing=Preprocessing(width=8, height=8),
    )  # fmt: skip
    files = {"model.onnx": b"x", CERTIFICATE: canonical_bytes(document), CARD: card}
    return build_bundle(manifest, files)


@pytest.mark.parametrize(
    ("changes", "gates", "more"),
    [
        ({"gates": CERTIFICATE_DOCUMENT["gates"] * 300}, 40, 560),
        ({"gates": [{"name": "x" * 9_000, "verdict": "maybe", "text": "y" * 9_000, "value": -5.0}]}, 1, 0),
        ({"gates": "none"}, 0, 0), ({"gates": [{"value": "high"}]}, 0, 0), ({"counts": {"slice:a": [1]}}, 2, 0),
    ],
)  # fmt: skip
def test_any_certificate_is_shown_bounded_or_said_to_be_unreadable(
    loop: Loop, changes: dict[str, Any], gates: int, more: int
) -> None:
    """Builders may write what they like: the page neither fails nor grows."""
    versions = loop.fleet.app.parts.versions
    data = strange({**CERTIFICATE_DOCUMENT, **changes}, b"\xff card " * 40_000)
    versions.blobs.put(sha256_hex(data), [data])
    versions.register(
        target_path("odd", 1, "gateway"), TargetCustom(model="odd", version=1, target="gateway"),
        sha256=sha256_hex(data), length_bytes=len(data), now_ms=1,
    )  # fmt: skip
    (target,) = release_view(loop.fleet.app.parts, "odd-1").targets.rows
    assert (len(target.gates.rows), target.gates.more) == (gates, more)
    assert all(len(row.title) + len(row.text) < 1_000 for row in target.gates.rows)
    assert (len(target.card) < 61_000, "gate.json that can be read" in target.missing) == (True, gates == 0)


def test_the_list_has_each_name_once_in_pages(loop: Loop) -> None:
    """Newest first, with where it runs; withdrawn ones by a filter; a cursor of another list is refused."""
    parts = loop.fleet.app.parts
    with parts.database.begin() as connection:
        row = dict(connection.execute(RELEASES.select().limit(1)).mappings().one())
        for number in range(60):
            for target in ("a", "b"):
                again = {"path": f"n{number}/{target}", "name": f"n-{number:02}", "registered_ms": 100 + number}
                connection.execute(RELEASES.insert(), row | again)
    parts.withdrawal.withdraw("digits-1", by=person("anna"))
    first = listed(parts, ())
    assert (first.total, first.rows[0].name, first.rows[0].targets, len(first.rows)) == (62, "n-59", "2", 50)
    rest = listed(parts, (("cursor", first.next or ""),))
    assert [(one.name, one.runs.text, one.ever) for one in rest.rows[-2:]] == [
        ("digits-2", "1 device", "1"), ("digits-1", "1 device", "2"),
    ]  # fmt: skip
    (gone,) = listed(parts, (("only", "withdrawn"),)).rows
    assert (gone.name, gone.status.tone, gone.status.text.endswith("still runs on 1")) == ("digits-1", Tone.BAD, True)
    assert [one.name for one in listed(parts, (("search", "N-0"),)).rows][:1] == ["n-09"]
    with pytest.raises(CursorRefusedError):
        listed(parts, (("cursor", "bm8"),))


def test_pictures_draw_any_figures_and_escape_their_words() -> None:
    """Zero, equal and negative figures; a picture without a bound; words with letters of HTML."""
    for value, bound, limit in ((0.0, 0.0, 0.0), (-3.0, None, -1.0), (1e12, 2e12, None)):
        assert "nan" not in gate_bar(value, bound, limit, passed=True, said="x")
    assert 'aria-label="&lt;b&gt; &quot;a&quot;"' in change_bar(1.0, 0.0, said='<b> "a"')
    assert 'width="152.0"' in change_bar(-9.0, 2.0, said="x")
