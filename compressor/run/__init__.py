"""A run: its stages in order, from a recipe to bundles, gates and report."""
