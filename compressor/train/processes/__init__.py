"""Training that several processes share, on one host or several."""
