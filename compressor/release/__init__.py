"""From files to a release: bundle, drift reference, keys, signatures, publishing, rebuilding."""
