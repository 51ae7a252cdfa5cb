"""The composition root: services, HTTP, TLS, state directory, and the health of the whole."""
