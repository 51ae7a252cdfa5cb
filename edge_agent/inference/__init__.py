"""The inference process: preprocess, run, count, sample."""
