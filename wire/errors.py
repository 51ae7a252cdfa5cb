"""The errors of the contract, as a tree.

WireError
├── NameRefusedError        a site, device or leaf that can't be part of a topic
├── TopicError              a topic outside ``tf/1/<site>/<device>/…``
├── MessageError            a payload that can't be decoded
├── ManifestError           a manifest that contradicts itself
├── HistogramError          counters of different shapes
├── ReferenceProfileError   a reference that can't be decoded
├── PathError               a path with an unknown home directory, or with a NUL character
├── SettingsError           a file of settings with an unknown key, a wrong type or a value out of range
├── InstallationError       two distributions of tinyfleet in one environment
├── PatchError              a patch that is not intact, or does not fit its base
└── BundleError             a bundle that is rejected
    ├── BundleOversizeError
    ├── BundleEntryError
    └── BundleDigestError

Every error carries a stable ``code`` that also travels in reports.
"""

from __future__ import annotations

from typing import ClassVar


class WireError(Exception):
    """Received data that violates the contract."""

    code: ClassVar[str] = "wire"


class NameRefusedError(WireError):
    """A site, device or stream name has characters that topics or paths can't carry."""

    code = "name_refused"


class TopicError(WireError):
    """A topic outside ``tf/1/<site>/<device>/…``."""

    code = "topic_unknown"


class MessageError(WireError):
    """A payload that can't be decoded into its message."""

    code = "message_invalid"


class ManifestError(WireError):
    """A manifest lacks something or contradicts itself."""

    code = "manifest_invalid"


class HistogramError(WireError):
    """Two sets of counters don't have the same shape."""

    code = "histogram_mismatch"


class PathError(WireError):
    """A path in a configuration begins with an unknown home directory, or has a NUL character."""

    code = "path_invalid"


class SettingsError(WireError):
    """A file of settings can't be read, or has an unknown key or an invalid value."""

    code = "settings_invalid"


class ReferenceProfileError(WireError):
    """A reference profile can't be decoded or belongs to another artifact."""

    code = "reference_invalid"


class InstallationError(WireError):
    """``tinyfleet`` and ``tinyfleet-agent`` are installed in one environment."""

    code = "installation_mixed"


class PatchError(WireError):
    """A patch is not intact, does not fit its base, or makes more or fewer bytes than expected."""

    code = "patch_invalid"


class BundleError(WireError):
    """A bundle that is rejected."""

    code = "bundle_invalid"


class BundleOversizeError(BundleError):
    """A bundle or one of its entries is larger than allowed."""

    code = "too_large"


class BundleEntryError(BundleError):
    """A bundle has an entry that is unknown, missing, repeated or compressed."""

    code = "bundle_entry"


class BundleDigestError(BundleError):
    """A digest in the manifest differs from that of the entry."""

    code = "digest_mismatch"
