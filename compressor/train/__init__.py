"""Training: small loops of our own, seeded."""
