"""Streams of inputs that follow each other: recordings cut into windows, and what is known of each stream."""
