"""The crash matrix: a fault at every durable system call of an update, and what must hold after it."""
