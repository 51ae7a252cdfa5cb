"""The device agent: runs inference, counts, spools, reports, updates and rolls back."""
