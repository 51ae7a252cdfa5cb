"""Recipes: what a run is made from, read strictly from one TOML file."""
