"""Alerts: what needs a person, once for each cause, and how it reaches that person."""
