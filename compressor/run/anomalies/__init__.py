"""Scores of anomalies that no network of ours gives: from an imported file, or by distance in an embedding."""
