"""A worker and a real server over HTTP: it leases, trains, gates, publishes, submits; and how it gives up."""

from __future__ import annotations

import csv
import io
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compressor import worker
from compressor.data import digits
from compressor.data._table import Table
from compressor.data.digits import DRIFTED
from compressor.errors import JobLostError, TrustError, WorkerError
from compressor.progress import Silent
from compressor.recipe.model import DataRecipe
from compressor.recipe.read import read_recipe
from compressor.release.keys import init_keys
from compressor.release.publish import publish
from compressor.run.pipeline import Outcome, run_recipe
from compressor.worker import (
    LeaseHeartbeat,
    Workplace,
    chosen_version,
    find_checkpoint,
    read_samples,
    serve,
    sole_worker,
    worker_name,
)
from compressor.worker.client import ServerClient
from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.retraining.jobs import JobOrder, TrainingJob
from server.retraining.policy import watched_in
from server.trust.online_keys import init_online_keys
from server.trust.roots import install_root
from wire.memory_broker import MemoryBroker, MemoryTransport

pytestmark = pytest.mark.slow


@dataclass(slots=True)
class BuildHost:
    """A running server, keys, and a worker's place with the first release built in it."""

    app: ServerApp
    place: Workplace
    first: Outcome

    def job(self, samples: bytes, model: str = "tiny") -> TrainingJob:
        """Return a fresh job on the first release."""
        base = self.app.parts.versions.release("tiny-1")
        order = JobOrder(
            retraining=1, model=model, base_release=base.name, base_sha256=base.sha256, cause="blurrier", labelled=200
        )
        return self.app.parts.retraining.jobs.create(order, samples, self.app.clock())

    def again(self, job: TrainingJob) -> TrainingJob:
        """Return the job in its present state on the server."""
        return self.app.parts.retraining.jobs.job(job.id)

    def client(self) -> ServerClient:
        """Return a client under the worker's name."""
        return ServerClient(self.place.server_url, self.place.token, worker_name(self.place.out))


@pytest.fixture(scope="module")
def samples() -> bytes:
    """Labelled samples of drifted cameras, as the server packs them."""
    return packed(digits.render(range(0, 200, 2), DRIFTED, "south"), "labels.csv")


def packed(table: Table, listing: str, before: bytes = b"", device: str = "") -> bytes:
    """Return the zip ``before`` with the pictures of ``table``, and the CSV file ``listing`` that names them.

    ``device``: whose scenes they are, each its own source; "": no source is named.
    """
    text, buffer = io.StringIO(), io.BytesIO(before)
    writer = csv.writer(text)
    writer.writerow(["path", "label", "slice", "lane", "sample", "source"])
    with zipfile.ZipFile(buffer, "a") as archive:
        for i, image in enumerate(table.images):
            png, path = io.BytesIO(), f"images/{listing}-{i}.png"
            Image.fromarray(image).save(png, "PNG")
            archive.writestr(path, png.getvalue())
            source = f"{device}/{i}" if device else ""
            writer.writerow([path, table.class_names[table.labels[i]], table.slices[i], "audit", i, source])
        archive.writestr(listing, text.getvalue())
    return buffer.getvalue()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The first release, built once."""
    recipe = read_recipe(Path(__file__).with_name("pipeline_recipe.toml"))
    return run_recipe(recipe, out=tmp_path_factory.mktemp("first"))


@pytest.fixture
def host(first: Outcome, tmp_path: Path) -> Iterator[BuildHost]:
    """A server that serves HTTP, with the first release published."""
    state = init_state(tmp_path / "server")
    init_online_keys(state.path)
    keys = tmp_path / "keys"
    install_root(state.path, init_keys(keys, state.path / "online.pub.json"))
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"), pages=False)
    app.start()
    out = Path(shutil.copytree(first.report.parent, tmp_path / "out"))
    recipe = read_recipe(Path(__file__).with_name("pipeline_recipe.toml"))
    recipe = replace(recipe, train=replace(recipe.train, fine_tune_epochs=1))
    place = Workplace(recipe=recipe, keys=keys, out=out, server_url=app.http_url, token=state.token("builder"))
    publish(list(first.bundles), keys=keys, server_url=app.http_url, token=place.token)
    yield BuildHost(app, place, first)
    app.stop()


def test_samples_are_decoded_as_the_recipe_says(tmp_path: Path) -> None:
    """A picture that was uploaded sideways and labelled upright is trained upright, at the size of the input."""
    picture = np.zeros((512, 1024, 3), np.uint8)
    picture[:64] = 255
    exif, png = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(picture)).save(png, "PNG", exif=exif)
    with zipfile.ZipFile(tmp_path / "samples.zip", "w") as archive:
        archive.writestr("labels.csv", "path,label,slice\n1.png,a,x\n2.png,b,x\n")
        archive.writestr("1.png", png.getvalue())
        archive.writestr("2.png", png.getvalue())
    upright = read_samples(tmp_path / "samples.zip", DataRecipe(width=128, height=64)).images[0]
    assert (upright.shape, int(upright[2].min()), int(upright[-1].max())) == ((128, 256, 3), 255, 0)
    stored = read_samples(tmp_path / "samples.zip", DataRecipe(orientation="stored", decode="full")).images[0]
    assert stored.shape == (1024, 512, 3)


def test_a_job_becomes_a_published_release(host: BuildHost, samples: bytes) -> None:
    """A release that passes is signed, published under the next number, and submitted with its certificate."""
    job = host.job(samples)
    code = serve(host.place, once=True, progress=Silent())
    ended = host.again(job)
    assert (code, ended.state, ended.release) == (0, "done", "tiny-2")
    assert host.app.parts.versions.release("tiny-2").model == "tiny"
    assert ended.certificate["baseline"] == "tiny-1"


def test_sites_that_did_not_drift_are_replayed_and_judged_one_by_one(host: BuildHost, samples: bytes) -> None:
    """Of 120 labelled pictures about half judge the site, the others are learnt from; the server gets the result."""
    watched = digits.render(range(300, 540, 2), digits.LENS_A, "east")
    job = host.job(packed(watched, "watched.csv", samples, "cam"))
    assert serve(host.place, once=True, progress=Silent()) == 0
    (site,) = watched_in(host.again(job).certificate)
    found = host.again(job).certificate["watched"][0]  # type: ignore[index,call-overload]
    assert (site.name, 40 <= found["n"] <= 80, found["limit"]) == ("east", True, 0.02)
    assert any("Site 'east', watched" in text for text in host.again(job).certificate["remarks"]) != site.harmless  # type: ignore[union-attr]


def test_what_the_gates_refuse_is_reported_and_never_published(host: BuildHost, samples: bytes) -> None:
    """The gate's text is sent to the server; there is no release."""
    gates = (*host.place.recipe.gates, replace(host.place.recipe.gates[0], max=10.0))
    host.place = replace(host.place, recipe=replace(host.place.recipe, gates=gates))
    job = host.job(samples)
    code = serve(host.place, once=True, progress=Silent())
    ended = host.again(job)
    assert (code, ended.state, ended.code) == (2, "failed", "gate_fail")
    assert "size_bytes" in ended.text
    assert [release.name for release in host.app.parts.versions.releases()] == ["tiny-1"]


def test_samples_that_leave_their_archive_are_refused(host: BuildHost) -> None:
    """A path that leaves the archive ends the job with a code."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../evil.png", b"x")
        archive.writestr("labels.csv", "path,label,slice\n../evil.png,1,a\n")
    job = host.job(buffer.getvalue())
    with pytest.raises(Exception, match="relative path"):
        serve(host.place, once=True, progress=Silent())
    assert host.again(job).state == "failed"
    assert not (host.place.out.parent / "evil.png").exists()


@pytest.mark.parametrize("kept", [b"", b"\xff", b"[]", b"{}", b'{"version": null}'])
def test_a_broken_file_of_the_version_is_named(kept: bytes, tmp_path: Path) -> None:
    """It ends the job with what to do, and not as a fault of ours."""
    (tmp_path / "version.json").write_bytes(kept)
    unread: Any = None  # order and client: the version was chosen before
    with pytest.raises(WorkerError, match="delete the file, another version is then chosen"):
        chosen_version(unread, tmp_path / "base.tfb", tmp_path, unread)


def test_another_models_job_is_refused(host: BuildHost, samples: bytes) -> None:
    """A worker with one recipe does not train another model."""
    job = host.job(samples, model="other")
    with pytest.raises(WorkerError, match="--recipe"):
        serve(host.place, once=True, progress=Silent())
    assert host.again(job).code == "worker_failed"


def test_a_stopped_worker_gives_its_job_back(host: BuildHost, samples: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C releases the lease at once and uses up no attempt."""

    def stop(*_arguments: object, **_options: object) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "run_recipe", stop)
    job = host.job(samples)
    with pytest.raises(KeyboardInterrupt):
        serve(host.place, once=True, progress=Silent())
    assert (host.again(job).state, host.again(job).attempts) == ("queued", 0)


@pytest.mark.parametrize("error", [RuntimeError("not enough memory"), MemoryError(), KeyError("x"), OSError("full")])
def test_a_job_that_breaks_the_worker_is_reported(
    host: BuildHost, samples: bytes, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """However a job ends, the server gets a report, and the worker could continue with the next."""

    def fail(*_arguments: object, **_options: object) -> Outcome:
        raise error

    monkeypatch.setattr(worker, "run_recipe", fail)
    job = host.job(samples)
    with pytest.raises(WorkerError, match=job.id):
        serve(host.place, once=True, progress=Silent())
    ended = host.again(job)
    assert (ended.state, ended.code) == ("failed", "io" if isinstance(error, OSError) else "internal")


def test_no_job_is_leased_that_could_not_be_signed(host: BuildHost, samples: bytes, tmp_path: Path) -> None:
    """Without the release key the worker ends before it leases a job."""
    host.place = replace(host.place, keys=tmp_path / "none")
    job = host.job(samples)
    with pytest.raises(TrustError):
        serve(host.place, once=True, progress=Silent())
    assert host.again(job).state == "queued"


def test_a_lost_lease_is_noticed(host: BuildHost, samples: bytes) -> None:
    """Once another worker has the job, the heartbeat's answer states it and nothing is submitted."""
    job = host.job(samples)
    with host.client() as client:
        order = client.lease()
        assert order is not None
        host.app.parts.retraining.jobs.failed(job.id, worker_name(host.place.out), "released", "", 0)
        with LeaseHeartbeat(client=client, job=order.id, interval_s=0.01).beating() as heartbeat:
            assert heartbeat.lost.wait(10)
            with pytest.raises(JobLostError):
                heartbeat.require()


def test_the_base_weights_are_known_by_their_digest(host: BuildHost) -> None:
    """Other weights beside the bundle are never used as the base."""
    bundle = host.first.bundles[0]
    assert find_checkpoint(bundle, host.place) == host.place.out / "float.pt"
    (host.place.out / "float.pt").write_bytes(b"other weights")
    assert find_checkpoint(bundle, host.place) is None


def test_the_base_weights_are_found_in_the_folders_of_earlier_runs(host: BuildHost) -> None:
    """A first release built in OUT/v1 is fine-tuned by a worker with --out OUT; too deep is not searched."""
    weights, out = host.place.out / "float.pt", host.place.out
    (out / "a/b/c/d").mkdir(parents=True)
    deep = weights.rename(out / "a/b/c/d/float.pt")
    assert find_checkpoint(host.first.bundles[0], host.place) is None
    near = deep.rename(out / "a/float.pt")
    assert find_checkpoint(host.first.bundles[0], host.place) == near


def test_one_worker_a_folder(tmp_path: Path) -> None:
    """A second worker under the same name is refused; the name outlives restarts."""
    assert worker_name(tmp_path) == worker_name(tmp_path)
    with sole_worker(tmp_path), pytest.raises(WorkerError, match="only worker"), sole_worker(tmp_path):
        pass
