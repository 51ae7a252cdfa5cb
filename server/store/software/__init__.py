"""What software devices run: distinct lists, their components, and which device ran which list when."""
