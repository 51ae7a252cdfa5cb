"""Recipes: the inputs of a run, read strictly from one TOML file."""
