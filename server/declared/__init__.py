"""The wanted state of a fleet as a file: what it may say, what differs from the server, and how that is carried out."""
