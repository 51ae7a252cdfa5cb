"""Inputs of the release before are answered again after a swap, and how many answers differ is counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.inference import kept_inputs
from edge_agent.inference.kept_inputs import FOLDER, KEPT_INPUTS, KeptInputs, KeptReleases
from edge_agent.inference.replay import Replay
from edge_agent.inference.served_model import load_model
from edge_agent.tasks import TaskAnswer
from wire.codec import decode
from wire.shadow import ShadowCounts


def _kept(bundle: Callable, tiny: dict, count: int, seed: int = 1) -> KeptInputs:
    kept, model = KeptInputs(chance=random.Random(seed)), load_model(bundle(version=1))  # noqa: S311 - seeded
    for image in tiny["images"](count, seed):
        data = tiny["png"](image)
        kept.offer(data, model, model.infer(data))
    return kept


def _counts(running: Replay, model: object) -> ShadowCounts:
    while running.counts is None:
        running.step(model)
    return running.counts


def test_a_swap_answers_kept_inputs_again_and_tells_once(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict
) -> None:
    """In a real child: nothing is counted as served twice."""
    running = child(bundle(version=1))
    running.until("ready")
    drop({f"{index:04}.png": tiny["png"](image) for index, image in enumerate(tiny["images"](12, 1))})
    running.until("beat", lambda _: sum(one.header["n"] for one in running.heard if one.kind == "beat") == 12)
    running.tell(type="swap", bundle=str(bundle(version=2)))
    frame = running.until("replay")
    counts = decode(ShadowCounts, frame.payload)
    assert (counts.n + counts.errors, counts.disagreed) == (12, sum(pair.n for pair in counts.pairs))
    assert frame.header["bundle"] == str(bundle(version=2))
    running.tell(type="stop")
    assert running.end() == 0
    assert sum(one.header["n"] for one in running.heard if one.kind == "window") == 12
    assert len([one for one in running.heard if one.kind == "replay"]) == 1


def test_a_swap_to_the_same_artifact_is_not_replayed_and_no_inputs_are_none(bundle: Callable, child: Callable) -> None:
    """A device without inputs says so by counts of zero."""
    running = child(bundle(version=1))
    running.until("ready")
    running.tell(type="swap", bundle=str(bundle(version=2)))
    counts = decode(ShadowCounts, running.until("replay").payload)
    assert (counts.n, counts.errors) == (0, 0)
    running.tell(type="stop")
    assert running.end() == 0


def test_a_model_answers_its_own_inputs_alike(bundle: Callable, tiny: dict) -> None:
    """The same release before and after: no disagreement, and the time of each run is counted."""
    counts = _counts(Replay(_kept(bundle, tiny, 20)), load_model(bundle(version=1)))
    assert (counts.n, counts.disagreed, counts.errors) == (20, 0, 0)
    assert sum(counts.run_steps.values()) == 20


def test_other_labels_and_inputs_that_can_not_be_answered_are_counted(bundle: Callable, tiny: dict) -> None:
    """Each kept input ends in one of the counts."""
    kept = _kept(bundle, tiny, 6)
    kept.items[0] = replace(kept.items[0], answer=TaskAnswer(label="other"))
    kept.items[1] = replace(kept.items[1], data=b"no image")
    counts = _counts(Replay(kept), load_model(bundle(version=1)))
    assert (counts.n, counts.disagreed, counts.errors) == (5, 1, 1)
    assert counts.pairs[0].champion == "other"


def test_inputs_of_another_form_are_skipped_and_no_other_answers(bundle: Callable, tiny: dict) -> None:
    """After a release that reads longer windows the source gives such ones; those that were kept say nothing of it."""
    kept = _kept(bundle, tiny, 3)
    kept.items[1] = replace(kept.items[1], data=b"a shorter window", form="another")
    counts = _counts(Replay(kept), load_model(bundle(version=1)))
    assert (counts.n, counts.disagreed, counts.errors, counts.skipped) == (2, 0, 0, 1)


def test_what_is_kept_is_bounded_and_uniform(bundle: Callable, tiny: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many inputs and bytes; early and late inputs are kept alike; a huge one is left out."""
    model = load_model(bundle(version=1))
    outcome = model.infer(tiny["png"](tiny["images"](1)[0]))
    monkeypatch.setattr(kept_inputs, "KEPT_BYTES", 40_000)
    late = 0
    for seed in range(40):
        kept = KeptInputs(chance=random.Random(seed))  # noqa: S311 - seeded
        for number in range(300):
            kept.offer(number.to_bytes(2, "big") * 500, model, outcome)
        assert 0 < len(kept.items) <= 40
        late += sum(int.from_bytes(one.data[:2], "big") >= 150 for one in kept.items) / len(kept.items)
    kept.offer(b"0" * (kept_inputs.KEPT_BYTES * 8), model, outcome)
    assert late / 40 == pytest.approx(0.5, abs=0.08)
    assert max(len(one.data) for one in kept.items) == 1000


def _stored(state: Path, bundle: Callable, tiny: dict, count: int = 12) -> KeptReleases:
    """Return what a device keeps below ``state`` of the first release, after it has served ``count`` inputs."""
    state.mkdir(exist_ok=True)
    releases, model = KeptReleases(state), load_model(bundle(version=1))
    releases.serve(model.manifest)
    for image in tiny["images"](count, 1):
        data = tiny["png"](image)
        releases.kept.offer(data, model, model.infer(data))
    releases.kept.write(count)
    return releases


def _anew(state: Path, bundle: Callable, version: int = 2) -> tuple[KeptReleases, Replay | None]:
    """Return what a process that starts with a release finds."""
    releases, manifest = KeptReleases(state), load_model(bundle(version=version)).manifest
    releases.serve(manifest)
    return releases, Replay(releases.before, manifest.artifact_sha256) if releases.before else None


def _total(counts: ShadowCounts) -> int:
    return counts.n + counts.errors + counts.skipped


@pytest.mark.parametrize("done", [0, 1, 5, 12])
def test_a_process_that_ends_in_a_replay_goes_on_with_it(
    bundle: Callable, tiny: dict, tmp_path: Path, done: int
) -> None:
    """Before the first answer, after some, and after the last: the same counts, whichever process took them."""
    whole = _counts(Replay(_stored(tmp_path / "a", bundle, tiny).kept), load_model(bundle(version=2)))
    _stored(tmp_path / "b", bundle, tiny)
    _, first = _anew(tmp_path / "b", bundle)
    for _ in range(done):
        first.step(load_model(bundle(version=2)))
    _, second = _anew(tmp_path / "b", bundle)
    assert len(second._items) == 12 - done
    counts = _counts(second, load_model(bundle(version=2)))
    assert (counts.n, counts.disagreed, counts.pairs) == (12, whole.disagreed, whole.pairs)


def test_what_is_confirmed_is_gone_and_what_is_not_comes_again(bundle: Callable, tiny: dict, tmp_path: Path) -> None:
    """After the confirmation a start has nothing to answer, and the new release keeps inputs of its own."""
    _stored(tmp_path, bundle, tiny)
    _, replay = _anew(tmp_path, bundle)
    _counts(replay, load_model(bundle(version=2)))
    again, replay = _anew(tmp_path, bundle)
    assert replay is not None
    again.forget()
    assert _anew(tmp_path, bundle)[1] is None
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_an_input_that_ended_the_process_is_not_tried_again(bundle: Callable, tiny: dict, tmp_path: Path) -> None:
    """It was begun, and is skipped; the others are answered. A torn line is none."""
    releases = _stored(tmp_path, bundle, tiny)
    artifact = load_model(bundle(version=2)).manifest.artifact_sha256
    begun = releases.kept.items[3].number
    (releases.kept.folder / f"answers-{artifact[:32]}").write_text(f'\n{{"number": {begun}, "counts": null}}\n{{"numb')
    counts = _counts(_anew(tmp_path, bundle)[1], load_model(bundle(version=2)))
    assert (counts.n, counts.skipped) == (11, 1)


def test_a_torn_file_is_one_input_less(bundle: Callable, tiny: dict, tmp_path: Path) -> None:
    """Cut short, empty, of zeros, or with a flipped bit, as a power cut leaves it."""
    folder = _stored(tmp_path, bundle, tiny).kept.folder
    for number, damage in enumerate((lambda d: d[:-9], lambda _: b"", lambda d: bytes(len(d)), lambda d: d + b"x"), 1):
        path = folder / str(number)
        path.write_bytes(damage(path.read_bytes()))
    counts = _counts(_anew(tmp_path, bundle)[1], load_model(bundle(version=2)))
    assert _total(counts) == counts.n == 8


def test_the_sample_goes_on_over_a_restart(bundle: Callable, tiny: dict, tmp_path: Path) -> None:
    """A device that restarts each day keeps inputs of all days alike."""
    model = load_model(bundle(version=1))
    outcome = model.infer(tiny["png"](tiny["images"](1)[0]))
    for day in range(20):
        releases = KeptReleases(tmp_path)
        releases.serve(model.manifest)
        releases.kept.chance = random.Random(day)  # noqa: S311 - seeded
        for _ in range(100):
            releases.kept.offer(bytes([day]) * 100, model, outcome)
            releases.kept.write(KEPT_INPUTS)
    early = sum(one.data[0] < 10 for one in releases.kept.items)
    assert len(releases.kept.items) == len(list(releases.kept.folder.iterdir())) == KEPT_INPUTS
    assert 20 <= early <= 44


def test_releases_that_come_and_go_leave_two_folders_at_most(bundle: Callable, tiny: dict, tmp_path: Path) -> None:
    """Forward, back and forward again: what is answered again is always of the release that served last."""
    _stored(tmp_path, bundle, tiny)
    for version, before in ((2, 1), (1, 2), (3, 1), (3, 1)):
        releases, replay = _anew(tmp_path, bundle, version)
        assert replay is not None
        artifact = load_model(bundle(version=before)).manifest.artifact_sha256
        assert releases.before.folder.name.endswith(artifact)
        assert len(list((tmp_path / FOLDER).iterdir())) == 2


@pytest.mark.parametrize("anew", [True, False])
def test_a_release_of_another_model_answers_no_inputs_of_the_one_before(
    bundle: Callable, tiny: dict, tmp_path: Path, *, anew: bool
) -> None:
    """After a move, with and without a start of the process between; back again, there is nothing left to compare."""
    releases = _stored(tmp_path, bundle, tiny)
    moved = replace(load_model(bundle(version=2)).manifest, model="other")
    after = KeptReleases(tmp_path) if anew else releases
    after.serve(moved)
    assert after.before is None
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [f"2-{moved.artifact_sha256}"]
    again, _ = _anew(tmp_path, bundle, version=1)
    assert again.before is None or again.before.items == []


def test_a_full_disk_costs_the_survival_and_nothing_else(
    bundle: Callable, tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near the reserve nothing is written; a folder that is gone ends the writing; the sample goes on."""
    monkeypatch.setattr(kept_inputs, "free_bytes", lambda _: kept_inputs.LEFT_BYTES - 1)
    releases = _stored(tmp_path, bundle, tiny)
    assert list(releases.kept.folder.iterdir()) == []
    monkeypatch.undo()
    releases.kept.folder.rmdir()
    releases.kept.write()
    assert (releases.kept.folder, len(releases.kept.items)) == (None, 12)


def test_the_disk_holds_no_more_than_the_sample(bundle: Callable, tmp_path: Path, tiny: dict) -> None:
    """Large inputs: a mebibyte of each of two releases, files of those that were replaced are gone."""
    releases, model = KeptReleases(tmp_path), load_model(bundle(version=1))
    releases.serve(model.manifest)
    outcome = model.infer(tiny["png"](tiny["images"](1)[0]))
    for number in range(60):
        releases.kept.offer(bytes([number]) * 100_000, model, outcome)
        releases.kept.write()
    files = [path.stat().st_size for path in releases.kept.folder.iterdir()]
    assert (len(files), sum(files) <= kept_inputs.KEPT_BYTES + 64 * 200) == (len(releases.kept.items), True)


def test_a_child_that_is_killed_at_any_moment_replays_once(
    bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path
) -> None:
    """Before the switch, in the replay and before its counts are confirmed; the last start has nothing left."""
    running = child(bundle(version=1), beat_s=0.02)
    drop({f"{index:04}.png": tiny["png"](image) for index, image in enumerate(tiny["images"](40, 1))})
    running.until("beat", lambda _: len(list((tmp_path / "state").glob(f"{FOLDER}/*/[0-9]*"))) == 40)
    running.process.kill()
    for wanted in (1, 7, 20):
        running = child(bundle(version=2), beat_s=0.02)
        while len(b"".join(path.read_bytes() for path in (tmp_path / "state").glob(f"{FOLDER}/*/answers-*"))) < wanted:
            assert running.process.poll() is None
        running.process.kill()
        running.process.wait()
    totals = []
    for _ in range(2):  # the counts are sent again, and are the same
        running = child(bundle(version=2), beat_s=0.02)
        frame = running.until("replay")
        totals.append(decode(ShadowCounts, frame.payload))
        running.process.kill()
        running.process.wait()
    assert replace(totals[0], seconds=0) == replace(totals[1], seconds=0)
    assert (_total(totals[0]), totals[0].skipped <= 3) == (40, True)
    running = child(bundle(version=2))
    frame = running.until("replay")
    running.tell(type="replayed", bundle=frame.header["bundle"])
    running.tell(type="stop")
    assert running.end() == 0
    running = child(bundle(version=2))
    running.until("beat")
    running.tell(type="stop")
    assert running.end() == 0
    assert "replay" not in [one.kind for one in running.heard]
