"""The server's two signing keys: they attest which metadata is current, never which release may run.

``keys/{snapshot,timestamp}.key`` stay here (0600); ``online.pub.json`` goes to the build host, which
names the keys in the root.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from server.errors import StateDirectoryError, TrustStoreError
from wire.canonical import canonical_bytes
from wire.durable import write_atomically

ROLES = ("snapshot", "timestamp")
PUBLIC_FILE = "online.pub.json"


def init_online_keys(state_dir: Path) -> Path:
    """Create both keys in ``state_dir/keys`` and return the path of ``online.pub.json``.

    Raises:
        StateDirectoryError: If there are keys already, which are never overwritten.
    """
    folder = state_dir / "keys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any((folder / f"{role}.key").exists() for role in ROLES):
        message = f"Expected no keys in {folder}, got some: devices trust them, so they are never overwritten"
        raise StateDirectoryError(message)
    public: dict[str, object] = {}
    for role in ROLES:
        signer = CryptoSigner.generate_ed25519()
        write_atomically(folder / f"{role}.key", signer.private_bytes, mode=0o600)
        public[role] = {"keyid": signer.public_key.keyid, **signer.public_key.to_dict()}
    path = state_dir / PUBLIC_FILE
    write_atomically(path, canonical_bytes(public) + b"\n", mode=0o644)
    return path


def load_online_key(state_dir: Path, role: str) -> CryptoSigner:
    """Return the signer of ``role`` (``snapshot`` or ``timestamp``).

    Raises:
        TrustStoreError: If its file is missing or not a key.
    """
    path = state_dir / "keys" / f"{role}.key"
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), None))
    except (OSError, ValueError, TypeError) as error:
        message = f"Expected a private key in {path}, got: {error}: restore it from the backup of the state directory"
        raise TrustStoreError(message) from error
