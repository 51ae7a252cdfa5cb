"""The composition root: services, HTTP, TLS, the state directory, and the server's health."""
