"""From ``desired`` to ``committed``, or back: states, download, verification, slots, probation."""
