"""Routers for samples, triggers and jobs of retraining."""
