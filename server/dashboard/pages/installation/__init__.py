"""Pages about this server itself: its settings, and what it is."""
