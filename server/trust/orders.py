"""Verifies early that the release key signed a measurement order; the device verifies it again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError

from server.errors import MetadataRefusedError
from server.trust.roots import read_root
from wire.codec import Json


@dataclass(frozen=True, slots=True)
class SignedOrders:
    """Verifies orders against the installed root of ``state_dir``."""

    state_dir: Path

    def __call__(self, envelope: Mapping[str, Json]) -> None:
        """Check that the key that the root names for targets signed ``envelope``.

        Raises:
            RootMissingError: If no root is installed.
            MetadataRefusedError: If the signature is missing or wrong.
        """
        root = read_root(self.state_dir)
        role = root.roles["targets"]
        try:
            signed = Envelope.from_dict(copy.deepcopy(cast("dict[str, Any]", dict(envelope))))
            signed.verify([root.keys[keyid] for keyid in role.keyids], role.threshold)
        except (VerificationError, FormatError, KeyError, ValueError, TypeError, AttributeError) as error:
            message = f"Expected a measurement order signed by the release key, got: {error}: sign it with our keys"
            raise MetadataRefusedError(message) from error
