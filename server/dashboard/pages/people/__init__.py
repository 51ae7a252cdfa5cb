"""Pages for admins: users, tokens, and the log of acts."""
