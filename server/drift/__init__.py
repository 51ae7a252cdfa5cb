"""Drift detection: statistics in pure numpy, and a service that reads windows and stores evidence and verdicts."""
