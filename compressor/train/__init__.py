"""Training: small seeded loops."""
