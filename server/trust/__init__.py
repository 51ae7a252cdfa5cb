"""Which releases are believed: the server signs freshness (snapshot, timestamp), never a release."""
