"""Figures about a rollout that people and the planner judge it by: what it takes, what its canaries show. Pure."""
