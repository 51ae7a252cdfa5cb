"""Streams of inputs that follow each other: recordings cut into windows, what is known of each stream, and columns."""
