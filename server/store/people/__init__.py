"""Tables of people and programs that act on the server, and of what they did."""
