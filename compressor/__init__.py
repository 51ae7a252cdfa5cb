"""The build host's half: train, compress, gate, sign and publish small models."""
