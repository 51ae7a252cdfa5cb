"""Mutation testing of the modules that decide; see ``scripts/mutants --help``."""
