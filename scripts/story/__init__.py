"""The demo: one story told by the real programs, from training to a canary of a retrained model."""
