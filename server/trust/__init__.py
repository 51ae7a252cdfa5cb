"""Signed metadata: the server signs freshness (snapshot, timestamp), never a release."""
