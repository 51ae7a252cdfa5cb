"""Servers on other hosts that a user has logged in to: the commands, and what is kept of them."""
