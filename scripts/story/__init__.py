"""The demo: the real programs, from training to a canary of a retrained model."""
