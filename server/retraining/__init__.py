"""From a verdict to a better model: what may be retrained, with which samples, by whom, and what became of it."""
