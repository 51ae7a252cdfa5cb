"""Where a release, a device's model, a sample or a job comes from, and what came of it."""
