"""The client workflow of The Update Framework, attack by attack, against ``edge-agent tuf``.

An independent repository is written with python-tuf's metadata classes, served over HTTP, and attacked as the holder of
some keys, or of none, could. Source: The Update Framework Specification 1.0.34, section 5 (client workflow) and section
1.5.2 (attacks). It stands in for tuf-conformance, which is on no package index and calls the same command line.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge_agent.cli import main
from wire.canonical import sha256_hex

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # the client counts bytes until its process ends
KEYS = [CryptoSigner.generate_ed25519() for _ in range(6)]
STRANGER = CryptoSigner.generate_ed25519()
FIRST = 5  # of every role but root, so that there are older versions
MODEL, TEAM_MODEL = "model.tfb", "team/model.tfb"
BYTES = b"what the build host signed"
_ORDER = ("root", "timestamp", "snapshot", "targets")


@dataclass
class Repository:
    """The metadata as the owner of all keys has it; ``write`` and ``link`` publish it below ``folder``."""

    folder: Path
    signed: dict[str, Signed] = field(default_factory=dict)
    signers: dict[str, list[CryptoSigner]] = field(default_factory=dict)
    endless: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Publish version 1 of the root and version ``FIRST`` of all other roles."""
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        self.signers = {name: [KEYS[n]] for n, name in enumerate(("root", "timestamp", "snapshot", "targets", "team"))}
        root, targets = Root(expires=until), Targets(FIRST, expires=until)
        for role in ("root", "timestamp", "snapshot", "targets"):
            root.add_key(self.signers[role][0].public_key, role)
        targets.delegations = Delegations({}, {})
        self.signed = {
            "root": root, "targets": targets, "timestamp": Timestamp(FIRST, expires=until),
            "snapshot": Snapshot(FIRST, expires=until),
        }  # fmt: skip
        self.delegate("team", ["team/*"])
        for role, path in (("targets", MODEL), ("team", TEAM_MODEL)):
            self.add(role, path)
        self.write("root")
        self.link()

    def delegate(self, role: str, paths: list[str], *, terminating: bool = False) -> Targets:
        """Let the targets role trust ``role`` with ``paths``; return its metadata."""
        self.signed[role] = made = Targets(FIRST, expires=self.signed["targets"].expires)
        self.signers.setdefault(role, [KEYS[5]])
        delegations = self.signed["targets"].delegations
        delegations.roles[role] = DelegatedRole(role, [], 1, terminating, paths)
        self.signed["targets"].add_key(self.signers[role][0].public_key, role)
        return made

    def add(self, role: str, path: str, data: bytes = BYTES) -> None:
        """Add a target to ``role`` and write its bytes."""
        self.signed[role].targets[path] = TargetFile.from_data(path, data)
        self.target_file(path, data).write_bytes(data)

    def target_file(self, path: str, data: bytes = BYTES) -> Path:
        """Return where a target is served."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.with_name(f"{sha256_hex(data)}.{file.name}")

    def write(self, role: str, *signers: CryptoSigner) -> bytes:
        """Sign ``role`` by its own keys, or by ``signers``, and publish it; return the bytes."""
        made = Metadata(deepcopy(self.signed[role]))
        for signer in signers or self.signers[role]:
            made.sign(signer, append=True)
        self.file(role).write_bytes(data := made.to_bytes())
        return data

    def file(self, role: str) -> Path:
        """Return where the present version of ``role`` is served."""
        name = f"{role}.json" if role == "timestamp" else f"{self.signed[role].version}.{role}.json"
        return self.folder / name

    def link(self, *, hashes: bool = True) -> None:
        """Publish all roles but root, each named by the one above it, with its digest and length or without."""
        delegated = [role for role in self.signed if role not in {"root", "timestamp", "snapshot", "targets"}]
        for role in (*delegated, "targets"):
            self.signed["snapshot"].meta[f"{role}.json"] = self._named(role, hashes=hashes)
        self.name_snapshot(hashes=hashes)

    def name_snapshot(self, *, hashes: bool = True) -> None:
        """Publish the snapshot as it is, and a timestamp that names it."""
        self.signed["timestamp"].snapshot_meta = self._named("snapshot", hashes=hashes)
        self.write("timestamp")

    def _named(self, role: str, *, hashes: bool) -> MetaFile:
        data, version = self.write(role), self.signed[role].version
        return MetaFile.from_data(version, data, ["sha256"]) if hashes else MetaFile(version)

    def raise_versions(self, *roles: str) -> None:
        """Raise the version of each role by one."""
        for role in roles:
            self.signed[role].version += 1

    def rotate(self, role: str, *keys: CryptoSigner, threshold: int = 1) -> None:
        """Replace the keys of ``role`` in the next root, which is not written yet."""
        root = self.signed["root"]
        self.raise_versions("root")
        root.roles[role].keyids = []
        root.roles[role].threshold = threshold
        for key in keys:
            root.add_key(key.public_key, role)
        self.signers[role] = list(keys)


class _Handler(SimpleHTTPRequestHandler):
    """Files, some of which never end."""

    server: Server

    def do_GET(self) -> None:
        if self.path.lstrip("/") not in self.server.endless:
            super().do_GET()
            return
        self.send_response(200)
        self.end_headers()
        for _ in range(1000):  # 64 MB
            self.wfile.write(b" " * 65_536)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """Serves a repository; ``endless`` are the names of files that never end."""

    daemon_threads = True
    endless: set[str]

    def handle_error(self, *_arguments: object) -> None:
        """Log nothing: the client has left."""


@dataclass
class Client:
    """``edge-agent tuf`` with its own folders."""

    url: str
    folder: Path
    targets: Path

    def run(self, *arguments: object) -> int:
        """Return the exit code of a command."""
        made = CliRunner().invoke(main, ["tuf", "--metadata-dir", str(self.folder), *map(str, arguments)])
        assert made.exception is None or isinstance(made.exception, SystemExit), made.output
        return made.exit_code

    def refresh(self) -> int:
        """Bring the metadata up to date."""
        return self.run("--metadata-url", self.url, "refresh")

    def download(self, path: str) -> int:
        """Download a target."""
        places = ("--target-base-url", self.url, "--target-dir", self.targets, "--target-name", path)
        return self.run("--metadata-url", self.url, *places, "download")

    def trusted(self) -> dict[str, int]:
        """Return the versions of what is trusted."""
        files = {path.stem: path for path in self.folder.glob("*.json")}
        return {role: json.loads(path.read_bytes())["signed"]["version"] for role, path in files.items()}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository that nobody attacks yet."""
    (tmp_path / "repository").mkdir()
    return Repository(tmp_path / "repository")


@pytest.fixture
def client(repository: Repository, tmp_path: Path) -> Iterator[Client]:
    """A client that trusts root 1 and has downloaded both targets' metadata once."""
    server = Server(("127.0.0.1", 0), functools.partial(_Handler, directory=str(repository.folder)))
    server.endless = repository.endless
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    made = Client(f"http://127.0.0.1:{server.server_port}", tmp_path / "metadata", tmp_path / "targets")
    assert made.run("init", repository.folder / "1.root.json") == 0
    assert (made.download(MODEL), made.download(TEAM_MODEL)) == (0, 0)
    for path in made.targets.iterdir():
        path.unlink()
    yield made
    server.shutdown()
    server.server_close()


Attack = Callable[[Repository], None]
ATTACKS: list[pytest.param] = []


def attack(stops: str) -> Callable[[Attack], Attack]:
    """Add an attack to the table; ``stops``: the first role that must stay as it was trusted before."""

    def add(one: Attack) -> Attack:
        ATTACKS.append(pytest.param(one, stops, id=one.__name__))
        return one

    return add


@attack("timestamp")
def rollback_of_the_timestamp(here: Repository) -> None:
    """5.4.3.1."""
    here.signed["timestamp"].version -= 1
    here.write("timestamp")


@attack("timestamp")
def rollback_of_the_snapshot(here: Repository) -> None:
    """5.4.3.2: a new timestamp that names an older snapshot."""
    here.raise_versions("timestamp")
    here.signed["snapshot"].version -= 1
    here.link()


@attack("snapshot")
def rollback_of_the_targets(here: Repository) -> None:
    """5.5.5: a new snapshot that names older targets."""
    here.raise_versions("timestamp", "snapshot")
    here.signed["targets"].version -= 1
    here.link()


@attack("snapshot")
def rollback_of_a_delegated_role(here: Repository) -> None:
    """5.5.5."""
    here.raise_versions("timestamp", "snapshot")
    here.signed["team"].version -= 1
    here.link()


@attack("snapshot")
def a_snapshot_without_the_targets(here: Repository) -> None:
    """5.5.5: what was listed once stays listed."""
    here.raise_versions("timestamp", "snapshot")
    del here.signed["snapshot"].meta["targets.json"]
    here.name_snapshot()


@attack("snapshot")
def a_snapshot_without_a_delegated_role(here: Repository) -> None:
    """5.5.5."""
    here.raise_versions("timestamp", "snapshot")
    del here.signed["snapshot"].meta["team.json"]
    here.name_snapshot()


@attack("root")
def rollback_of_the_root(here: Repository) -> None:
    """5.3.5: the file of the next version holds the present one."""
    data = here.write("root")
    (here.folder / "2.root.json").write_bytes(data)


@attack("root")
def a_root_that_skips_a_version(here: Repository) -> None:
    """5.3.5."""
    here.raise_versions("root", "root")
    data = here.write("root")
    (here.folder / "2.root.json").write_bytes(data)


@attack("root")
def a_root_that_the_old_one_did_not_sign(here: Repository) -> None:
    """5.3.4: the new key alone is not enough."""
    here.rotate("root", KEYS[5])
    here.write("root")


@attack("root")
def a_root_that_its_own_key_did_not_sign(here: Repository) -> None:
    """5.3.4: the old key alone is not enough either."""
    here.rotate("root", KEYS[5])
    here.write("root", KEYS[0])


@attack("root")
def one_signature_of_a_root_that_needs_two(here: Repository) -> None:
    """5.3.4: the threshold."""
    here.rotate("root", KEYS[0], KEYS[5], threshold=2)
    here.write("root", KEYS[0])


@attack("root")
def one_key_that_signs_a_root_twice(here: Repository) -> None:
    """4.2.1: a key counts once towards a threshold."""
    here.rotate("root", KEYS[0], KEYS[5], threshold=2)
    document = json.loads(here.write("root", KEYS[0]))
    document["signatures"] *= 2
    here.file("root").write_text(json.dumps(document))


@attack("root")
def a_changed_byte_in_the_root(here: Repository) -> None:
    """5.3.4."""
    here.raise_versions("root")
    data = here.write("root")
    here.file("root").write_bytes(data.replace(b"true", b"false", 1))


@attack("timestamp")
def freeze_by_an_old_root(here: Repository) -> None:
    """5.3.10: the last root has expired."""
    here.raise_versions("root", "timestamp")
    here.signed["root"].expires -= timedelta(days=2)
    here.write("root")
    here.write("timestamp")


@attack("snapshot")
def freeze_by_an_old_timestamp(here: Repository) -> None:
    """5.4.4."""
    here.raise_versions("timestamp", "snapshot")
    here.signed["timestamp"].expires -= timedelta(days=2)
    here.link()


@attack("targets")
def freeze_by_an_old_snapshot(here: Repository) -> None:
    """5.5.6."""
    here.raise_versions("timestamp", "snapshot", "targets")
    here.signed["snapshot"].expires -= timedelta(days=2)
    here.link()


@attack("targets")
def freeze_by_old_targets(here: Repository) -> None:
    """5.6.5."""
    here.raise_versions("timestamp", "snapshot", "targets")
    here.signed["targets"].expires -= timedelta(days=2)
    here.link()


@attack("timestamp")
def a_timestamp_by_another_key(here: Repository) -> None:
    """5.4.2."""
    here.raise_versions("timestamp")
    here.write("timestamp", STRANGER)


@attack("timestamp")
def a_timestamp_by_the_key_of_another_role(here: Repository) -> None:
    """5.4.2: the key of the targets is no key of the timestamp."""
    here.raise_versions("timestamp")
    here.write("timestamp", KEYS[3])


@attack("snapshot")
def a_snapshot_by_another_key(here: Repository) -> None:
    """5.5.3."""
    here.raise_versions("timestamp", "snapshot")
    here.signers["snapshot"] = [STRANGER]
    here.link()


@attack("targets")
def targets_by_another_key(here: Repository) -> None:
    """5.6.3."""
    here.raise_versions("timestamp", "snapshot", "targets")
    here.signers["targets"] = [STRANGER]
    here.link()


@attack("targets")
def targets_by_a_key_that_was_taken_back(here: Repository) -> None:
    """5.3.4 and 5.6.3: after a rotation the old key signs nothing more."""
    here.rotate("targets", KEYS[5])
    here.signers["targets"] = [KEYS[3]]
    here.write("root")
    here.raise_versions("timestamp", "snapshot", "targets")
    here.link()


@attack("snapshot")
def mix_and_match_of_the_snapshot(here: Repository) -> None:
    """5.5.2: another snapshot, signed as well, than the one that the timestamp names."""
    old = here.write("snapshot")
    here.raise_versions("timestamp", "snapshot")
    here.link()
    here.file("snapshot").write_bytes(old)


@attack("snapshot")
def mix_and_match_of_the_snapshot_by_its_version(here: Repository) -> None:
    """5.5.4: the same without digests."""
    old = here.write("snapshot")
    here.raise_versions("timestamp", "snapshot")
    here.link(hashes=False)
    here.file("snapshot").write_bytes(old)


@attack("targets")
def mix_and_match_of_the_targets(here: Repository) -> None:
    """5.6.2."""
    old = here.write("targets")
    here.raise_versions("timestamp", "snapshot", "targets")
    here.link()
    here.file("targets").write_bytes(old)


@attack("targets")
def mix_and_match_of_the_targets_by_their_version(here: Repository) -> None:
    """5.6.4."""
    old = here.write("targets")
    here.raise_versions("timestamp", "snapshot", "targets")
    here.link(hashes=False)
    here.file("targets").write_bytes(old)


@attack("root")
def an_endless_root(here: Repository) -> None:
    """5.3.3."""
    here.endless.add("2.root.json")


@attack("timestamp")
def an_endless_timestamp(here: Repository) -> None:
    """5.4.1."""
    here.endless.add("timestamp.json")


@attack("snapshot")
def an_endless_snapshot(here: Repository) -> None:
    """5.5.1."""
    here.raise_versions("timestamp", "snapshot")
    here.link(hashes=False)
    here.endless.add(here.file("snapshot").name)


@attack("targets")
def endless_targets(here: Repository) -> None:
    """5.6.1."""
    here.raise_versions("timestamp", "snapshot", "targets")
    here.link(hashes=False)
    here.endless.add(here.file("targets").name)


@pytest.mark.parametrize(("attack_on", "stops"), ATTACKS)
def test_is_refused_and_what_was_trusted_stays(
    repository: Repository, client: Client, attack_on: Attack, stops: str
) -> None:
    """Exit code 1; the attacked role and those below it are trusted as they were."""
    before = {path.name: path.read_bytes() for path in client.folder.glob("*.json")}
    attack_on(repository)
    assert client.refresh() == 1
    for role in _ORDER[_ORDER.index(stops) :]:
        assert (client.folder / f"{role}.json").read_bytes() == before[f"{role}.json"]


def next_version(here: Repository) -> None:
    """Every role one version later."""
    here.raise_versions("team", "targets", "snapshot", "timestamp")
    here.link()


def the_same_again(here: Repository) -> None:
    """Nothing new: no rollback."""
    here.link()


def an_expired_root_on_the_way(here: Repository) -> None:
    """5.3.10: only the last root has to be current."""
    until = here.signed["root"].expires
    here.raise_versions("root")
    here.signed["root"].expires -= timedelta(days=2)
    here.write("root")
    here.raise_versions("root")
    here.signed["root"].expires = until
    here.write("root")


def a_rotation_to_a_threshold_of_two(here: Repository) -> None:
    """5.3.4: signed by the old key and by both new ones; then those two replace one of them."""
    here.rotate("root", KEYS[4], KEYS[5], threshold=2)
    here.write("root", KEYS[0], KEYS[4], KEYS[5])
    here.rotate("root", KEYS[4], KEYS[1], threshold=2)
    here.write("root", KEYS[4], KEYS[5], KEYS[1])


def new_keys_for_every_role(here: Repository) -> None:
    """5.3.11."""
    for role in _ORDER[1:]:
        here.rotate(role, KEYS[5])
        here.write("root")
    next_version(here)


@pytest.mark.parametrize(
    "change",
    [
        next_version,
        the_same_again,
        an_expired_root_on_the_way,
        a_rotation_to_a_threshold_of_two,
        new_keys_for_every_role,
    ],
)
def test_is_accepted(repository: Repository, client: Client, change: Callable[[Repository], None]) -> None:
    """What an honest repository does: exit code 0, and its versions are trusted."""
    change(repository)
    assert client.refresh() == 0
    assert client.trusted() == {
        role: signed.version for role, signed in repository.signed.items() if role != "team"
    } | {"team": FIRST}


@pytest.mark.parametrize(("role", "rotated"), [("timestamp", 1), ("snapshot", 1), ("targets", 2)])
def test_fast_forward_is_undone_by_a_new_root(repository: Repository, client: Client, role: str, rotated: int) -> None:
    """5.3.11: after an attacker's version 1000 the owner's version 7 is accepted only once the keys above changed."""
    honest = deepcopy(repository.signed)
    repository.raise_versions("timestamp", "snapshot", "targets")
    repository.signed[role].version = 1000
    repository.link()
    assert client.refresh() == 0
    repository.signed = honest
    for _ in range(2):
        next_version(repository)
    assert client.refresh() == 1
    for above in _ORDER[1 : rotated + 1]:
        repository.rotate(above, KEYS[5])
        repository.write("root")
    repository.link()
    assert client.refresh() == 0
    assert client.trusted()[role] == FIRST + 2


def wrong_bytes(here: Repository) -> None:
    """5.7.2: the same length, other bytes."""
    here.target_file(MODEL).write_bytes(BYTES[::-1])


def too_long(here: Repository) -> None:
    """5.7.1."""
    here.target_file(MODEL).write_bytes(BYTES + b"x")


def too_short(here: Repository) -> None:
    """5.7.1."""
    here.target_file(MODEL).write_bytes(BYTES[:-1])


def endless(here: Repository) -> None:
    """5.7.1."""
    here.endless.add(here.target_file(MODEL).name)


def missing(here: Repository) -> None:
    """5.7.3."""
    here.target_file(MODEL).unlink()


@pytest.mark.parametrize("spoil", [wrong_bytes, too_long, too_short, endless, missing])
def test_a_target_that_is_not_the_signed_one_is_not_stored(
    repository: Repository, client: Client, spoil: Callable[[Repository], None]
) -> None:
    """The other target is still to be had."""
    spoil(repository)
    assert (client.download(MODEL), list(client.targets.iterdir())) == (1, [])
    assert (client.download(TEAM_MODEL), len(list(client.targets.iterdir()))) == (0, 1)


def by_another_key(here: Repository) -> None:
    """5.6.3: the delegated role is signed by a key that the targets role does not name."""
    here.signers["team"] = [STRANGER]


def under_a_threshold(here: Repository) -> None:
    """5.6.3: two keys are needed, one signed."""
    here.signed["targets"].add_key(KEYS[5].public_key, "team")
    here.signed["targets"].delegations.roles["team"].threshold = 2


def expired(here: Repository) -> None:
    """5.6.5."""
    here.signed["team"].expires -= timedelta(days=2)


def outside_its_paths(here: Repository) -> None:
    """5.6.7.2: a role is not believed about what was not delegated to it."""
    here.signed["targets"].delegations.roles["team"].paths = ["others/*"]


def behind_a_terminating_role(here: Repository) -> None:
    """5.6.7.2.1: a terminating role that does not list the target ends the search."""
    here.delegate("first", ["team/*"], terminating=True)
    roles = here.signed["targets"].delegations.roles
    roles["team"] = roles.pop("team")


def in_a_circle(here: Repository) -> None:
    """5.6.7.1: a role is visited once, and the search ends."""
    del here.signed["team"].targets[TEAM_MODEL]
    here.signed["team"].delegations = deepcopy(here.signed["targets"].delegations)


DELEGATIONS = [by_another_key, under_a_threshold, expired, outside_its_paths, behind_a_terminating_role, in_a_circle]


@pytest.mark.parametrize("change", DELEGATIONS)
def test_a_target_of_a_delegated_role_is_refused(
    repository: Repository, client: Client, change: Callable[[Repository], None]
) -> None:
    """Nothing is stored; what the targets role itself signed is still to be had."""
    change(repository)
    repository.raise_versions("team", "targets", "snapshot", "timestamp")
    repository.link()
    assert (client.download(TEAM_MODEL), list(client.targets.iterdir())) == (1, [])
    assert client.download(MODEL) == 0


def test_the_first_delegation_that_lists_a_target_decides(repository: Repository, client: Client) -> None:
    """5.6.7.2: in the order of the targets role, whatever a later role says."""
    repository.delegate("late", ["team/*"])
    repository.add("late", TEAM_MODEL, b"of the later role")
    next_version(repository)
    assert client.download(TEAM_MODEL) == 0
    assert [path.read_bytes() for path in client.targets.iterdir()] == [BYTES]
