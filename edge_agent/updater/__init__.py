"""The update client: states, download, verification, slots, probation and rollback."""
