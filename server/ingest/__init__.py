"""From messages to rows and windows."""
