"""Drift detection: references, baselines, detectors, pools and attribution. Pure."""
