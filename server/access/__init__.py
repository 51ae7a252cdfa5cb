"""People and programs that may act on the server: roles, users, tokens, sessions, limits, and the log of their acts."""
