"""Commands that only ask: they change nothing."""
