"""Retraining: which verdicts start it, with which samples, on which worker, and the rollout of the result."""
