"""Decides which devices get a release, and when: groups, canaries, thresholds; none outside the opened groups."""
