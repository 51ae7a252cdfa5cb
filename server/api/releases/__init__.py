"""Routers for releases, their bundles and metadata, and rollouts."""
