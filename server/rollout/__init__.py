"""Which devices get a release, and when: groups, thresholds, canaries; nobody outside the opened groups."""
