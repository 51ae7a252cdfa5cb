"""Routes about the people and programs that act: accounts, tokens, and the log of their acts."""
