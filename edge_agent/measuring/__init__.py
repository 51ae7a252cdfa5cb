"""A measurement that the build host ordered: who signed it, one at a time, in a child of its own, never installed."""
