"""The errors of the contract, as a tree.

WireError
├── NameRefusedError        a site, device or leaf that may not be part of a topic
├── TopicError              a topic that is not one of ours
├── MessageError            a payload that does not decode
├── ManifestError           a manifest that contradicts itself
├── HistogramError          counters of different shapes
├── ReferenceProfileError   a reference that does not decode
├── PathError               a path with a home directory that nobody has, or a NUL character
├── SettingsError           a file of settings with an unknown key, a wrong type or a value out of range
└── BundleError             a bundle that may not be opened
    ├── BundleOversizeError
    ├── BundleEntryError
    └── BundleDigestError

Every error carries a stable ``code`` that also travels in reports.
"""

from __future__ import annotations

from typing import ClassVar


class WireError(Exception):
    """Something that arrived does not follow the contract."""

    code: ClassVar[str] = "wire"


class NameRefusedError(WireError):
    """A site, device or stream name has characters that topics or paths can't carry."""

    code = "name_refused"


class TopicError(WireError):
    """A topic is not one of ``tf/1/<site>/<device>/…``."""

    code = "topic_unknown"


class MessageError(WireError):
    """A payload does not decode into its message."""

    code = "message_invalid"


class ManifestError(WireError):
    """A manifest lacks something or contradicts itself."""

    code = "manifest_invalid"


class HistogramError(WireError):
    """Two sets of counters don't have the same shape."""

    code = "histogram_mismatch"


class PathError(WireError):
    """A path in a configuration begins with the home directory of nobody."""

    code = "path_invalid"


class SettingsError(WireError):
    """A file of settings can't be read, or has a key or a value that can't be meant."""

    code = "settings_invalid"


class ReferenceProfileError(WireError):
    """A reference profile does not decode or belongs to another artifact."""

    code = "reference_invalid"


class BundleError(WireError):
    """A bundle may not be opened."""

    code = "bundle_invalid"


class BundleOversizeError(BundleError):
    """A bundle or one of its entries is larger than allowed."""

    code = "too_large"


class BundleEntryError(BundleError):
    """A bundle has an entry that is unknown, missing, repeated or compressed."""

    code = "bundle_entry"


class BundleDigestError(BundleError):
    """A digest in the manifest differs from the bytes beside it."""

    code = "digest_mismatch"
